"""Features of a data set -> .npz, .npy with .csv, or .parquet, each by a function that writes into a stream."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from thaw.data.readers import escape_path
from thaw.data.samples import Samples
from thaw.models.network import pool

ROWS_PER_CHUNK = 1024
Writer = Callable[[BinaryIO], object]


@dataclass(frozen=True)
class Export:
    """`features` is float32 [samples, ...], row i of `samples.samples[i]`; `backbone` and `stage` made them."""

    features: np.ndarray
    samples: Samples
    backbone: str
    stage: str

    def build_metadata(self) -> dict[str, str]:
        return {"stage": self.stage, "backbone": self.backbone, "fingerprint": self.samples.fingerprint}

    def list_paths(self) -> list[str]:
        """Bytes of a name that are no UTF-8 are written as \\xNN: neither Parquet nor a terminal takes them."""
        return [escape_path(sample.path) for sample in self.samples.samples]

    def list_splits(self) -> list[str]:
        return [sample.split for sample in self.samples.samples]


def pool_features(values: np.ndarray) -> np.ndarray:
    """float32 [samples, width]: maps averaged over their pixels as the network does it, a transformer's tokens
    [samples, tokens, width] over the tokens; vectors as they are."""
    if values.ndim == 2:
        return values
    chunks = [values[start : start + ROWS_PER_CHUNK] for start in range(0, len(values), ROWS_PER_CHUNK)]
    return np.concatenate([_pool_chunk(torch.from_numpy(np.array(chunk))) for chunk in chunks])


def _pool_chunk(values: torch.Tensor) -> np.ndarray:
    pooled: np.ndarray = (values.mean(1) if values.ndim == 3 else pool(values)).numpy()
    return pooled


def build_writers(export: Export, file: Path) -> dict[Path, Writer]:
    """What to write for `file`, whose ending is .npz, .npy or .parquet: file -> what puts its bytes into a stream.

    .npz holds `features`, `paths`, `labels` int64, `splits`, `classes`, and the scalars `stage`, `backbone` and
    `fingerprint`; nothing in it is pickled. .npy holds the features alone, with a .csv of path, label, class and split
    beside it, a row a sample in the same order; its paths are the bytes that they are, as in predictions.csv. .parquet
    has a fixed-size list of float32 a row, and the scalars and `classes` in its schema's metadata.

    Raises:
        ImportError: for .parquet without pyarrow.
    """
    if file.suffix == ".npz":
        return {file: lambda stream: _write_npz(stream, export)}
    if file.suffix == ".parquet":
        return {file: _build_parquet_writer(export)}
    csv_file = file.with_suffix(".csv")
    return {
        csv_file: lambda stream: stream.write(_format_csv(export)),
        file: lambda stream: np.save(stream, export.features),
    }


def _write_npz(stream: BinaryIO, export: Export) -> None:
    arrays = {
        "features": export.features,
        "paths": np.array(export.list_paths()),
        "labels": export.samples.get_labels(),
        "splits": np.array(export.list_splits()),
        "classes": np.array(export.samples.classes),
    }
    np.savez(stream, **arrays, **{name: np.array(text) for name, text in export.build_metadata().items()})  # type: ignore[arg-type]


def _format_csv(export: Export) -> bytes:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "class", "split"])
    classes = export.samples.classes
    writer.writerows(
        [sample.path, sample.label, classes[sample.label], sample.split] for sample in export.samples.samples
    )
    return buffer.getvalue().encode("utf-8", "surrogateescape")


def _build_parquet_writer(export: Export) -> Writer:
    import pyarrow as arrow
    from pyarrow import parquet

    classes, labels = export.samples.classes, export.samples.get_labels()
    values = arrow.array(np.ascontiguousarray(export.features, dtype=np.float32).ravel())
    columns = {
        "path": arrow.array(export.list_paths(), arrow.string()),
        "label": arrow.array(labels),
        "class": arrow.array([classes[label] for label in labels], arrow.string()),
        "split": arrow.array(export.list_splits(), arrow.string()),
        "features": arrow.FixedSizeListArray.from_arrays(values, export.features.shape[1]),
    }
    metadata = {**export.build_metadata(), "classes": json.dumps(list(classes))}
    table = arrow.table(columns).replace_schema_metadata(metadata)
    return lambda stream: parquet.write_table(table, stream)
