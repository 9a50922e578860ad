"""Build tables of samples from single rows, and list them as such."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from thaw.data.sample_table import SPLIT_CODES, HashTable, PathTable, Sample, SampleTable, build_table


class Row(NamedTuple):
    """What a reader says of an image."""

    path: str
    class_name: str
    split: str = ""
    group: str | None = None


def build_rows_table(rows: Sequence[Row]) -> SampleTable:
    """Build the table of a reader, which is sorted by path."""
    return build_table(*(list(column) for column in zip(*rows, strict=True)))


def list_rows(table: SampleTable) -> list[Row]:
    return [Row(sample.path, table.classes[sample.label], sample.split, sample.group) for sample in table]


def build_sample_table(classes: Sequence[str], samples: Sequence[Sample]) -> SampleTable:
    """Build a table of `samples` in their order."""
    paths = PathTable.build(sample.path for sample in samples)
    labels = np.array([sample.label for sample in samples], dtype=np.int64)
    splits = np.array([SPLIT_CODES[sample.split] for sample in samples], dtype=np.int8)
    table = SampleTable(tuple(classes), paths, labels, splits, (), np.zeros_like(labels))
    return table.replace_groups([sample.group for sample in samples])


def build_hashes(contents: Iterable[str]) -> HashTable:
    """Build hashes that differ where `contents` do."""
    return HashTable.build(hashlib.sha256(content.encode()).hexdigest() for content in contents)
