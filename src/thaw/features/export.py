"""Export the features of a data set as .npz, .npy with .csv, or .parquet."""

from __future__ import annotations

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
from thaw.system.csv_files import format_rows

ROWS_PER_CHUNK = 1024
Writer = Callable[[BinaryIO], object]


@dataclass(frozen=True)
class Export:
    """Features, float32 [samples, ...] in the order of `samples`, computed by `backbone` up to `stage`."""

    features: np.ndarray
    samples: Samples
    backbone: str
    stage: str

    def build_metadata(self) -> dict[str, str]:
        """Return the stage, the backbone and the fingerprint of the data set."""
        return {"stage": self.stage, "backbone": self.backbone, "fingerprint": self.samples.fingerprint}

    def list_paths(self) -> list[str]:
        """Return the paths; bytes that are not UTF-8 become \\xNN, as neither Parquet nor a terminal accepts them."""
        return [escape_path(path) for path in self.samples.samples.paths]

    def list_splits(self) -> list[str]:
        """Return the split of each sample."""
        return self.samples.samples.list_splits()


def pool_features(values: np.ndarray) -> np.ndarray:
    """Pool features to vectors, float32 [samples, width].

    Maps are averaged over their pixels, as in the network, tokens [samples, tokens, width] over the tokens; vectors are
    returned unchanged.
    """
    if values.ndim == 2:
        return values
    chunks = [values[start : start + ROWS_PER_CHUNK] for start in range(0, len(values), ROWS_PER_CHUNK)]
    return np.concatenate([_pool_chunk(torch.from_numpy(np.array(chunk))) for chunk in chunks])


def _pool_chunk(values: torch.Tensor) -> np.ndarray:
    pooled: np.ndarray = (values.mean(1) if values.ndim == 3 else pool(values)).numpy()
    return pooled


def build_writers(export: Export, file: Path) -> dict[Path, Writer]:
    """Return the files to write for `file`, each with the function that writes it into a stream.

    The suffix of `file` decides:

    - .npz: `features`, `paths`, `labels` int64, `splits`, `classes`, and the scalars `stage`, `backbone` and
      `fingerprint`; nothing is pickled.
    - .npy: the features only, and a .csv of path, label, class and split with one row per sample in the same order. Its
      paths are the original bytes, as in predictions.csv.
    - .parquet: a fixed-size list of float32 per row, the scalars and `classes` in the metadata of the schema.

    Raises:
        ImportError: for .parquet if pyarrow is not installed.
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
    scalars = {name: np.array(text) for name, text in export.build_metadata().items()}
    np.savez(stream, **arrays, **scalars)  # type: ignore[arg-type]


def _format_csv(export: Export) -> bytes:
    classes = export.samples.classes
    rows = [[sample.path, sample.label, classes[sample.label], sample.split] for sample in export.samples.samples]
    return format_rows([["path", "label", "class", "split"], *rows]).encode("utf-8", "surrogateescape")


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
