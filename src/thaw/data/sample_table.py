"""The labeled images of a data set in columns: a million of them take 100 MB, and no Python object each.

`Sample` objects are made when a table is indexed or iterated over. Code that handles all images uses the columns.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np

SPLITS = ("train", "val", "test")
UNUSED_SPLIT = (
    "unused"  # the split of train images that are not used; they stay in the table, so that caches are shared
)
UNDRAWN_SPLIT = ""  # the split of train images before missing splits are drawn from them
SPLIT_NAMES = (*SPLITS, UNUSED_SPLIT, UNDRAWN_SPLIT)  # an index into them is the code of a split
SPLIT_CODES = {name: code for code, name in enumerate(SPLIT_NAMES)}
NO_GROUP = -1  # the code of an image that is in no group
HASH_BYTES = 32  # SHA-256


@dataclass(frozen=True)
class Sample:
    """One labeled image; `path` is relative to the root of the data set, with forward slashes. `label` is an index into
    the classes of its table. `group` is what it belongs to, such as a patient or a video; None: there are no groups."""

    path: str
    label: int
    split: str
    group: str | None = None


class PathTable(Sequence[str]):
    """Paths as one block of bytes: 9 bytes for each besides its own.

    Attributes:
        text: all paths, each followed by a zero byte. Bytes of a file name need not be UTF-8.
        ends: int64 [paths], where each path ends in `text`.
    """

    def __init__(self, text: bytes) -> None:
        self.text = text
        self.ends = np.flatnonzero(np.frombuffer(text, np.uint8) == 0)

    @classmethod
    def build(cls, paths: Iterable[str]) -> PathTable:
        """Build the table of `paths`, none of which contains a zero byte."""
        return cls("\0".join([*paths, ""]).encode("utf-8", "surrogateescape"))

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        position = range(len(self))[index]
        start = self.ends[position - 1] + 1 if position else 0
        return self.text[start : self.ends[position]].decode("utf-8", "surrogateescape")

    def __iter__(self) -> Iterator[str]:
        return iter(self.text.decode("utf-8", "surrogateescape").split("\0")[:-1])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PathTable) and self.text == other.text

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"PathTable of {len(self)} paths"

    def split_bytes(self) -> list[bytes]:
        """Return the paths as the bytes that the file system knows them by."""
        return self.text.split(b"\0")[:-1]

    def subset(self, positions: np.ndarray) -> PathTable:
        """Return the paths at `positions`, int64 [n]."""
        paths = self.split_bytes()
        return PathTable(b"\0".join([*map(paths.__getitem__, positions.tolist()), b""]))

    def find_positions(self, paths: PathTable) -> np.ndarray:
        """Return the position of each of `paths` in this table, int64; -1 if it is not there."""
        if paths == self:
            return np.arange(len(paths))
        positions = {path: position for position, path in enumerate(self.split_bytes())}
        return np.array([positions.get(path, -1) for path in paths.split_bytes()], dtype=np.int64)


class HashTable(Sequence[str]):
    """SHA-256 of files. An item is 64 hex digits; `digests`, uint8 [files, 32], are the bytes of all."""

    def __init__(self, digests: np.ndarray) -> None:
        self.digests = digests

    @classmethod
    def build(cls, hashes: Iterable[str]) -> HashTable:
        """Build the table of `hashes`, 64 hex digits each."""
        return cls(np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(-1, HASH_BYTES))

    def __len__(self) -> int:
        return len(self.digests)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> list[str]: ...
    def __getitem__(self, index: int | slice) -> str | list[str]:
        if isinstance(index, slice):
            return list(HashTable(self.digests[index]))
        digits: str = self.digests[index].tobytes().hex()
        return digits

    def __iter__(self) -> Iterator[str]:
        digits, width = self.digests.tobytes().hex(), 2 * HASH_BYTES
        return (digits[start : start + width] for start in range(0, len(digits), width))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, HashTable) and np.array_equal(self.digests, other.digests)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"HashTable of {len(self)} files"

    def subset(self, positions: np.ndarray) -> HashTable:
        """Return the hashes at `positions`, int64 [n]."""
        return HashTable(self.digests[positions])

    def find_unique(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the first position of each distinct hash, in the order of the hashes, int64, and which of these each
        file has, int64 [files]."""
        values = np.ascontiguousarray(self.digests).view(f"V{HASH_BYTES}").ravel()
        _, first_positions, inverse = np.unique(values, return_index=True, return_inverse=True)
        return first_positions.astype(np.int64), inverse.astype(np.int64)

    def compute_digest(self) -> str:
        """Return a hash of all hashes, 64 hex digits."""
        return hashlib.sha256(self.digests.tobytes()).hexdigest()


NO_HASHES = HashTable(np.zeros((0, HASH_BYTES), dtype=np.uint8))


@dataclass(frozen=True, eq=False)
class SampleTable(Sequence[Sample]):
    """Labeled images in columns.

    Attributes:
        classes: class names, sorted.
        paths: relative to the root of the data set.
        labels: int64 [samples], indices into `classes`.
        splits: int8 [samples], indices into SPLIT_NAMES.
        group_names: sorted.
        groups: int64 [samples], indices into `group_names`, or NO_GROUP.
    """

    classes: tuple[str, ...]
    paths: PathTable
    labels: np.ndarray
    splits: np.ndarray
    group_names: tuple[str, ...]
    groups: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sample]: ...
    def __getitem__(self, index: int | slice) -> Sample | list[Sample]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        group = self.group_names[self.groups[index]] if self.groups[index] >= 0 else None
        return Sample(self.paths[index], int(self.labels[index]), SPLIT_NAMES[self.splits[index]], group)

    def __iter__(self) -> Iterator[Sample]:
        names = (*self.group_names, None)  # the last is that of NO_GROUP
        columns = self.paths, self.labels.tolist(), self.splits.tolist(), self.groups.tolist()
        for path, label, split, group in zip(*columns, strict=True):
            yield Sample(path, label, SPLIT_NAMES[split], names[group])

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, SampleTable)
            and (self.classes, self.paths, self.list_groups()) == (other.classes, other.paths, other.list_groups())
            and np.array_equal(self.labels, other.labels)
            and np.array_equal(self.splits, other.splits)
        )

    __hash__ = None  # type: ignore[assignment]

    def list_splits(self) -> list[str]:
        """Return the name of the split of each sample."""
        return [SPLIT_NAMES[code] for code in self.splits.tolist()]

    def list_groups(self) -> list[str | None]:
        """Return the name of the group of each sample, or None."""
        names = (*self.group_names, None)
        return [names[code] for code in self.groups.tolist()]

    def list_class_names(self) -> list[str]:
        """Return the class name of each sample."""
        return [self.classes[label] for label in self.labels.tolist()]

    def list_present_classes(self) -> list[str]:
        """Return the names of the classes that have samples, sorted."""
        return [self.classes[label] for label in np.flatnonzero(np.bincount(self.labels)).tolist()]

    def select_splits(self, *names: str) -> np.ndarray:
        """Return which samples are in one of the splits, bool [samples]."""
        return np.isin(self.splits, [SPLIT_CODES[name] for name in names])

    def group_by_class(self) -> list[np.ndarray]:
        """Return the positions of the samples of each class that has some, int64, in the order of the classes."""
        counts = np.bincount(self.labels)
        return np.split(np.argsort(self.labels, kind="stable"), np.cumsum(counts[counts > 0])[:-1])

    def subset(self, positions: np.ndarray) -> SampleTable:
        """Return the samples at `positions`, int64 [n]."""
        columns = {name: getattr(self, name)[positions] for name in ("labels", "splits", "groups")}
        return replace(self, paths=self.paths.subset(positions), **columns)

    def replace_classes(self, classes: Sequence[str], class_names: Sequence[str] | None = None) -> SampleTable:
        """Return the table with labels that are indices into `classes`: those of `class_names`, a name for each of the
        classes before, by default of the same name. Classes without samples need no name in `classes`."""
        label_by_name = {name: label for label, name in enumerate(classes)}
        new_labels = [label_by_name.get(name, -1) for name in class_names or self.classes]
        return replace(self, classes=tuple(classes), labels=np.array(new_labels, dtype=np.int64)[self.labels])

    def replace_groups(self, groups: Sequence[str | None]) -> SampleTable:
        """Return the table with the group of each sample; None and an empty name are no group."""
        names, codes = _encode([name or None for name in groups])
        return replace(self, group_names=names, groups=codes)

    def finish_splits(self) -> SampleTable:
        """Return the table with the samples from which no split was drawn in train."""
        is_undrawn = self.select_splits(UNDRAWN_SPLIT)
        return replace(self, splits=np.where(is_undrawn, np.int8(SPLIT_CODES["train"]), self.splits))

    def sort_by_split(self) -> np.ndarray:
        """Return the positions of the samples by split, int64 [samples]. Those of a split keep their order."""
        return np.argsort(self.splits, kind="stable")


def build_table(
    paths: Sequence[str],
    class_names: Sequence[str],
    splits: Sequence[str] | None = None,
    groups: Sequence[str | None] | None = None,
) -> SampleTable:
    """Build a table of labeled images, sorted by path. Without `splits` none is drawn yet; without `groups` there are
    none."""
    classes, labels = _encode(class_names)
    split_codes = [SPLIT_CODES[name] for name in splits] if splits else [SPLIT_CODES[UNDRAWN_SPLIT]] * len(paths)
    group_names, group_codes = _encode([name or None for name in groups] if groups else [None] * len(paths))
    order = np.array(sorted(range(len(paths)), key=paths.__getitem__), dtype=np.int64)
    path_table = PathTable.build([paths[position] for position in order.tolist()])
    split_column = np.array(split_codes, dtype=np.int8)[order]
    return SampleTable(classes, path_table, labels[order], split_column, group_names, group_codes[order])


def _encode(values: Sequence[str | None]) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the distinct values, sorted, and the index of each into them, int64; -1 for None."""
    names = tuple(sorted({value for value in values if value is not None}))
    codes: dict[str | None, int] = {name: code for code, name in enumerate(names)}
    return names, np.array([codes.get(value, NO_GROUP) for value in values], dtype=np.int64)
