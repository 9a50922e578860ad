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

from thaw.data.problems import printable
from thaw.data.samples import Samples
from thaw.network.network import vectors

ROWS_AT_ONCE = 1024
Writer = Callable[[BinaryIO], object]


@dataclass(frozen=True)
class Export:
    """`features` is float32 [samples, ...], row i of `samples.samples[i]`; `backbone` and `stage` made them."""

    features: np.ndarray
    samples: Samples
    backbone: str
    stage: str

    def about(self) -> dict[str, str]:
        return {"stage": self.stage, "backbone": self.backbone, "fingerprint": self.samples.fingerprint}

    def paths(self) -> list[str]:
        """Bytes of a name that are no UTF-8 are written as \\xNN: neither Parquet nor a terminal takes them."""
        return [printable(sample.path) for sample in self.samples.samples]

    def splits(self) -> list[str]:
        return [sample.split for sample in self.samples.samples]


def averaged(values: np.ndarray) -> np.ndarray:
    """float32 [samples, width]: maps averaged over their pixels as the network does it, a transformer's tokens
    [samples, tokens, width] over the tokens; vectors as they are."""
    if values.ndim == 2:
        return values
    pieces = [values[start : start + ROWS_AT_ONCE] for start in range(0, len(values), ROWS_AT_ONCE)]
    return np.concatenate([_averaged(torch.from_numpy(np.array(piece))) for piece in pieces])


def _averaged(values: torch.Tensor) -> np.ndarray:
    found: np.ndarray = (values.mean(1) if values.ndim == 3 else vectors(values)).numpy()
    return found


def writers(export: Export, file: Path) -> dict[Path, Writer]:
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
        return {file: _parquet(export)}
    rows = file.with_suffix(".csv")
    return {rows: lambda stream: stream.write(_csv(export)), file: lambda stream: np.save(stream, export.features)}


def _write_npz(stream: BinaryIO, export: Export) -> None:
    arrays = {
        "features": export.features,
        "paths": np.array(export.paths()),
        "labels": export.samples.labels(),
        "splits": np.array(export.splits()),
        "classes": np.array(export.samples.classes),
    }
    np.savez(stream, **arrays, **{name: np.array(text) for name, text in export.about().items()})  # type: ignore[arg-type]


def _csv(export: Export) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["path", "label", "class", "split"])
    classes = export.samples.classes
    writer.writerows([one.path, one.label, classes[one.label], one.split] for one in export.samples.samples)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _parquet(export: Export) -> Writer:
    import pyarrow as arrow
    from pyarrow import parquet

    classes, labels = export.samples.classes, export.samples.labels()
    values = arrow.array(np.ascontiguousarray(export.features, dtype=np.float32).ravel())
    columns = {
        "path": arrow.array(export.paths(), arrow.string()),
        "label": arrow.array(labels),
        "class": arrow.array([classes[label] for label in labels], arrow.string()),
        "split": arrow.array(export.splits(), arrow.string()),
        "features": arrow.FixedSizeListArray.from_arrays(values, export.features.shape[1]),
    }
    about = {**export.about(), "classes": json.dumps(list(classes))}
    table = arrow.table(columns).replace_schema_metadata(about)
    return lambda stream: parquet.write_table(table, stream)
