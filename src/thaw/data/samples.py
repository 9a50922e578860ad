"""The table of samples of a data set: its classes, splits and groups, and its fingerprint."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from thaw.config.errors import Problem, UserError, format_names
from thaw.data.file_index import NO_INDEX, FileIndex
from thaw.data.folder_reader import read_image_folder
from thaw.data.groups import check_group_leaks
from thaw.data.readers import Correction, ReaderResult, escape_path, escape_paths
from thaw.data.sample_table import (
    NO_GROUP,
    NO_HASHES,
    SPLIT_CODES,
    SPLITS,
    UNDRAWN_SPLIT,
    UNUSED_SPLIT,
    HashTable,
    SampleTable,
)
from thaw.data.splits import SplitSettings, draw_splits, prepare_splits


@dataclass(frozen=True)
class Samples:
    """All samples of a data set.

    Attributes:
        root: the folder that the paths are relative to.
        samples: ordered by split and path.
        ignored_files: printable path -> reason, of files that are no samples: not images, hidden, or in no class
            folder. Folders, which are empty or read already, end with "/".
        hashes: of each file, in the order of `samples`.
        notes: how the data set was read, where that is not obvious.
        warnings: what is likely to be a mistake in the data set or in the recipe.
        corrections: `excluded` and `relabeled` -> what `data.exclude` and `data.relabel` have changed.
        own_splits: splits that the data set has itself; the others are drawn.
    """

    root: Path
    samples: SampleTable
    ignored_files: Mapping[str, str]
    hashes: HashTable = field(default_factory=lambda: NO_HASHES)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    own_splits: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, sorted; a label is an index into them."""
        return self.samples.classes

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits that change with the bytes, path, label or split of any image."""
        digest, table = hashlib.sha256(repr(self.classes).encode()), self.samples
        lines = zip(table.paths.split_bytes(), table.labels.tolist(), table.list_splits(), self.hashes, strict=True)
        for path, label, split, file_hash in lines:
            digest.update(path + f"\0{label}\0{split}\0{file_hash}\n".encode())
        return digest.hexdigest()[:16]

    def get_positions(self, split: str) -> np.ndarray:
        """Return the positions of the split's samples in `samples`, int64."""
        return np.flatnonzero(self.samples.select_splits(split))

    def count_per_split(self) -> dict[str, int]:
        """Return the number of samples of train, val and test."""
        return {split: len(self.get_positions(split)) for split in SPLITS}

    def get_labels(self) -> np.ndarray:
        """Return the labels, int64 [samples]."""
        return self.samples.labels

    @property
    def has_groups(self) -> bool:
        """Whether the images belong to groups."""
        return bool((self.samples.groups != NO_GROUP).any())

    def get_groups(self) -> np.ndarray:
        """Return the index of the group of each sample, int64 [samples]: groups are numbered in the order of their
        names. Without groups every sample is a group of its own."""
        if not self.has_groups:
            return np.arange(len(self.samples), dtype=np.int64)
        return np.unique(self.samples.groups, return_inverse=True)[1].astype(np.int64)

    def group_ignored_files(self) -> dict[str, list[str]]:
        """Return the printable paths of the ignored files by reason, both sorted."""
        groups: dict[str, list[str]] = {}
        for path, reason in sorted(self.ignored_files.items(), key=lambda item: (item[1], item[0])):
            groups.setdefault(reason, []).append(path)
        return groups

    def find_unique_contents(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the position of one sample for each file content, int64 [contents], and the index of the content of
        each sample, int64 [samples].

        The order of the contents depends only on the files, not on the splits.
        """
        return self._unique_contents

    @cached_property
    def _unique_contents(self) -> tuple[np.ndarray, np.ndarray]:
        return self.hashes.find_unique()

    def subset(self, positions: Sequence[int] | np.ndarray) -> Samples:
        """Return the samples at `positions`, with the same classes."""
        indices = np.asarray(positions, dtype=np.int64)
        return replace(self, samples=self.samples.subset(indices), hashes=self.hashes.subset(indices))

    def replace_splits(self, splits: np.ndarray) -> Samples:
        """Return the same images in other splits, int8 [samples], indices into SPLIT_NAMES."""
        return replace(self, samples=replace(self.samples, splits=splits))


def load_folder_samples(
    root: Path,
    folders: Mapping[str, str | None],
    settings: SplitSettings,
    exclude: Collection[str] = (),
    merge_subfolders: bool = False,
) -> Samples:
    """Load an image folder: `root/SPLIT/CLASS/...` if any of the split folders `folders` exists, else `root/CLASS/...`.

    Files and folders in `exclude` are skipped. Splits without a folder are created as in `build_samples`.

    Raises:
        UserError: as `read_image_folder` and `build_samples`.
    """
    return build_samples(read_image_folder(root, folders, exclude, merge_subfolders), settings)


def build_samples(reader_result: ReaderResult, settings: SplitSettings, file_index: FileIndex = NO_INDEX) -> Samples:
    """Build the samples of a reader's rows, with the splits that `settings` draw.

    Raises:
        UserError: if there are fewer than two classes, no train or test images, a split folder without images of a
            class, a class without train images, class names that are not UTF-8, or some that differ in spaces only; if
            groups are in several splits of the data set itself; and as `draw_splits`.
    """
    reader_result = split_reader_result(reader_result, settings)
    hashes = file_index.hash_files(reader_result.root, reader_result.rows.paths)
    return index_rows(reader_result, list_classes(reader_result), hashes)


def split_reader_result(reader_result: ReaderResult, settings: SplitSettings) -> ReaderResult:
    """Check a reader's rows, and draw the splits that they lack. `build_samples` says what is raised."""
    reader_result = prepare_splits(reader_result, settings)
    _check_provided_splits(reader_result, settings.fractions)
    _check_classes(list_classes(reader_result), reader_result)
    reader_result = check_group_leaks(reader_result, is_allowed=settings.allows_group_leaks)
    reader_result = draw_splits(reader_result, settings)
    _check_splits(reader_result)
    if reader_result.corrections:  # which may leave a class its test images alone
        _check_train_classes(list_classes(reader_result), reader_result)
    return reader_result


def list_classes(reader_result: ReaderResult) -> tuple[str, ...]:
    """Return the names of the classes of a reader's rows, sorted."""
    return tuple(reader_result.rows.list_present_classes())


def index_rows(reader_result: ReaderResult, classes: Sequence[str], hashes: HashTable) -> Samples:
    """Build the samples of the rows, whose class names are in `classes` and whose files have `hashes`; a row without a
    split is a train image."""
    table = reader_result.rows.replace_classes(classes).finish_splits()
    order = table.sort_by_split()
    return Samples(
        reader_result.root,
        table.subset(order),
        reader_result.ignored_files,
        hashes.subset(order),
        reader_result.notes,
        (*reader_result.warnings, *_describe_similar_classes(classes)),
        reader_result.corrections,
        tuple(reader_result.provided_splits),
    )


def _check_provided_splits(reader_result: ReaderResult, fractions: Mapping[str, float]) -> None:
    """Raise if the folder of a split contains no images of a class, as Kaggle's test images without labels."""
    empty_splits = [
        split
        for split in SPLITS
        if split in reader_result.provided_splits and not reader_result.rows.select_splits(split).any()
    ]
    if not empty_splits:
        return
    problems = [
        Problem(
            reader_result.provided_splits[split],
            "no images in class folders",
            reader_result.layout,
            _suggest_split_setting(split, empty_splits, fractions),
        )
        for split in empty_splits
    ]
    raise UserError(f"the data set under {reader_result.root} has no {format_names(empty_splits)} images.", problems)


def _suggest_split_setting(split: str, empty_splits: Collection[str], fractions: Mapping[str, float]) -> str:
    if "train" in empty_splits:
        return "class folders in it, or dataset.splits=null if it is a class itself"
    fraction = " dataset.fractions.test=0.15" if split == "test" and not fractions.get(split) else ""
    return f"dataset.splits.{split}=null{fraction}, which takes {split} images from train"


def _check_classes(classes: Sequence[str], reader_result: ReaderResult) -> None:
    root = str(reader_result.root)
    if len(classes) < 2:
        got = f"{len(classes)} class{'' if len(classes) == 1 else 'es'} {format_names(escape_paths(classes))}".strip()
        raise UserError(
            "the data set has too few classes.",
            [Problem(root, got, reader_result.layout, "dataset.root=DIR of such data")],
        )
    if undecodable_names := [name for name in classes if escape_path(name) != name]:
        names = format_names(escape_paths(undecodable_names))
        problem = Problem(root, names, "names in UTF-8: tables and figures contain them")
        raise UserError("class names that cannot be decoded.", [problem])
    if spaced_names := [group for group in _group_similar_names(classes) if len(set(map(str.casefold, group))) > 1]:
        got = "names that differ in spaces only"
        problems = [Problem(format_names(map(repr, group)), got) for group in spaced_names]
        raise UserError(f"the classes under {root} are ambiguous; give each one name.", problems)
    _check_train_classes(classes, reader_result)


def _check_train_classes(classes: Sequence[str], reader_result: ReaderResult) -> None:
    rows = reader_result.rows
    train_labels = np.unique(rows.labels[rows.select_splits("train", UNDRAWN_SPLIT)])
    train_classes = {rows.classes[label] for label in train_labels.tolist()}
    missing_classes = [name for name in classes if name not in train_classes]
    if not missing_classes:
        return
    got = f"no train images of {format_names(missing_classes)}"
    similar_names = [group for group in _group_similar_names(classes) if set(group) & set(missing_classes)]
    fix = reader_result.missing_class_hint.format(names=", ".join(missing_classes))
    if similar_names:
        got += f"; names that differ in case only: {format_names(' and '.join(group) for group in similar_names)}"
        fix = "the same name in every split"
    elif not train_classes:
        fix = reader_result.missing_split_hint.format(split="train")
    problem = Problem(str(reader_result.root), got, "train images of every class", fix)
    raise UserError("classes without train images.", [problem])


def _group_similar_names(classes: Iterable[str]) -> list[list[str]]:
    """Return the names that differ only in case and spaces, for each group of at least two."""
    groups: dict[str, list[str]] = {}
    for name in classes:
        groups.setdefault(" ".join(name.casefold().split()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def _describe_similar_classes(classes: Iterable[str]) -> Iterator[str]:
    for group in _group_similar_names(classes):
        yield f"classes whose names differ in case only: {format_names(group)}"


def _check_splits(reader_result: ReaderResult) -> None:
    rows = reader_result.rows
    counts = {"train": int(rows.select_splits("train", UNDRAWN_SPLIT).sum())}
    counts |= {split: int(rows.select_splits(split).sum()) for split in ("val", "test")}
    empty_splits = [split for split in ("train", "test") if not counts[split]]
    if empty_splits:
        got = ", ".join(f"{count} {split}" for split, count in counts.items())
        split = empty_splits[0]
        fix = f"{reader_result.missing_split_hint.format(split=split)}, or dataset.fractions.{split}=0.15"
        problem = Problem(str(reader_result.root), got, fix=fix)
        raise UserError(f"the data set has no {split} images.", [problem])


def limit_per_class(samples: Samples, per_class: int, seed: int) -> Samples:
    """Keep at most `per_class` train images per class, drawn by (seed, label), and move the others to UNUSED_SPLIT.

    The images of a smaller number are a subset of those of a larger one. Val and test stay unchanged.
    """
    splits = samples.samples.splits.copy()
    splits[samples.get_positions("train")] = SPLIT_CODES[UNUSED_SPLIT]
    splits[np.concatenate(list(_sample_positions(samples, per_class, seed)))] = SPLIT_CODES["train"]
    return samples.replace_splits(splits)


def _sample_positions(samples: Samples, per_class: int, seed: int) -> Iterator[np.ndarray]:
    labels, train_positions = samples.get_labels(), samples.get_positions("train")
    order = train_positions[np.argsort(labels[train_positions], kind="stable")]
    counts = np.bincount(labels[train_positions], minlength=len(samples.classes))
    for label, class_positions in enumerate(np.split(order, np.cumsum(counts)[:-1])):
        yield class_positions[np.random.default_rng((seed, label)).permutation(len(class_positions))[:per_class]]
