"""The table of samples of a data set: its classes, splits and groups, and its fingerprint."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from thaw.config.errors import Problem, UserError, format_names
from thaw.data.file_index import HASH_BYTES, NO_INDEX, FileIndex
from thaw.data.folder_reader import read_image_folder
from thaw.data.groups import check_group_leaks
from thaw.data.readers import SPLITS as SPLITS
from thaw.data.readers import Correction, ReaderResult, Row, escape_path, escape_paths
from thaw.data.splits import SplitSettings, draw_splits, prepare_splits

UNUSED_SPLIT = (
    "unused"  # the split of train images that are not used; they stay in the table, so that caches are shared
)


@dataclass(frozen=True)
class Sample:
    """One labeled image; `path` is relative to the root of the data set, with forward slashes. `group` is what it
    belongs to, such as a patient or a video; None: the data set has no groups."""

    path: str
    label: int
    split: str
    group: str | None = None


@dataclass(frozen=True)
class Samples:
    """All samples of a data set.

    Attributes:
        root: the folder that the paths are relative to.
        classes: class names, sorted; a label is an index into them.
        samples: ordered by split and path.
        ignored_files: printable path -> reason, of files that are no samples: not images, hidden, or in no class
            folder. Folders, which are empty or read already, end with "/".
        fingerprint: changes with the bytes, path, label or split of any image.
        hashes: SHA-256 of each file, 64 hex digits, in the order of `samples`.
        notes: how the data set was read, where that is not obvious.
        warnings: what is likely to be a mistake in the data set or in the recipe.
        corrections: `excluded` and `relabeled` -> what `data.exclude` and `data.relabel` have changed.
        own_splits: splits that the data set has itself; the others are drawn.
    """

    root: Path
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    ignored_files: Mapping[str, str]
    fingerprint: str
    hashes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    corrections: Mapping[str, Correction] = field(default_factory=dict)
    own_splits: tuple[str, ...] = ()

    def get_positions(self, split: str) -> np.ndarray:
        """Return the positions of the split's samples in `samples`, int64."""
        return np.array([index for index, sample in enumerate(self.samples) if sample.split == split], dtype=np.int64)

    def count_per_split(self) -> dict[str, int]:
        """Return the number of samples of train, val and test."""
        return {split: sum(sample.split == split for sample in self.samples) for split in SPLITS}

    def get_labels(self) -> np.ndarray:
        """Return the labels, int64 [samples]."""
        return np.array([sample.label for sample in self.samples], dtype=np.int64)

    @property
    def has_groups(self) -> bool:
        """Whether the images belong to groups."""
        return any(sample.group is not None for sample in self.samples)

    def get_groups(self) -> np.ndarray:
        """Return the index of the group of each sample, int64 [samples]: groups are numbered in the order of their
        names. Without groups every sample is a group of its own."""
        if not self.has_groups:
            return np.arange(len(self.samples), dtype=np.int64)
        names = [sample.group for sample in self.samples]
        index_by_name = {name: index for index, name in enumerate(sorted({name for name in names if name is not None}))}
        return np.array([index_by_name[name] for name in names if name is not None], dtype=np.int64)

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
        _, first_positions, inverse = np.unique(np.array(self.hashes), return_index=True, return_inverse=True)
        return first_positions.astype(np.int64), inverse.astype(np.int64)

    def subset(self, positions: Sequence[int]) -> Samples:
        """Return the samples at `positions`, with the same classes and a fingerprint of their own."""
        samples = tuple(self.samples[position] for position in positions)
        hashes = tuple(self.hashes[position] for position in positions)
        fingerprint = _compute_fingerprint(self.classes, samples, hashes)
        return replace(self, samples=samples, hashes=hashes, fingerprint=fingerprint)

    def replace_splits(self, samples: Sequence[Sample]) -> Samples:
        """Return the same images with the splits of `samples` and the fingerprint of these."""
        return replace(
            self, samples=tuple(samples), fingerprint=_compute_fingerprint(self.classes, samples, self.hashes)
        )


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
    return index_rows(list_classes(reader_result), reader_result, file_index)


def split_reader_result(reader_result: ReaderResult, settings: SplitSettings) -> ReaderResult:
    """Check a reader's rows, and draw the splits that they lack. `build_samples` says what is raised."""
    reader_result = prepare_splits(reader_result, settings)
    _check_provided_splits(reader_result, settings.fractions)
    _check_classes(list_classes(reader_result), reader_result)
    reader_result = check_group_leaks(reader_result, is_allowed=settings.allows_group_leaks)
    reader_result = draw_splits(reader_result, settings)
    _check_splits(reader_result.rows, reader_result)
    if reader_result.corrections:  # which may leave a class its test images alone
        _check_train_classes(list_classes(reader_result), reader_result)
    return reader_result


def list_classes(reader_result: ReaderResult) -> tuple[str, ...]:
    """Return the names of the classes of a reader's rows, sorted."""
    return tuple(sorted({row.class_name for row in reader_result.rows}))


def index_rows(
    classes: tuple[str, ...],
    reader_result: ReaderResult,
    file_index: FileIndex = NO_INDEX,
    known_hashes: Mapping[str, str] | None = None,
) -> Samples:
    """Build the samples of the rows, whose class names are in `classes`; a row without a split is a train image.
    `known_hashes` maps paths to the hash of the file, if `file_index` has found it already."""
    class_to_idx = {name: index for index, name in enumerate(classes)}
    samples = [
        Sample(row.path, class_to_idx[row.class_name], row.split or "train", row.group) for row in reader_result.rows
    ]
    ordered_samples = tuple(sorted(samples, key=lambda sample: (SPLITS.index(sample.split), sample.path)))
    if known_hashes is None:
        hashes = _hash_files(reader_result.root, ordered_samples, file_index)
    else:
        hashes = tuple(known_hashes[sample.path] for sample in ordered_samples)
    return Samples(
        reader_result.root,
        classes,
        ordered_samples,
        reader_result.ignored_files,
        _compute_fingerprint(classes, ordered_samples, hashes),
        hashes,
        reader_result.notes,
        (*reader_result.warnings, *_describe_similar_classes(classes)),
        reader_result.corrections,
        tuple(reader_result.provided_splits),
    )


def _hash_files(root: Path, samples: Sequence[Sample], file_index: FileIndex) -> tuple[str, ...]:
    digits = file_index.hash_files(root, [sample.path for sample in samples]).tobytes().hex()
    return tuple(digits[start : start + 2 * HASH_BYTES] for start in range(0, len(digits), 2 * HASH_BYTES))


def _compute_fingerprint(classes: tuple[str, ...], samples: Sequence[Sample], hashes: Sequence[str]) -> str:
    """Return 16 hex digits that change with the bytes, path, label or split of any image."""
    digest = hashlib.sha256(repr(classes).encode())
    for sample, file_hash in zip(samples, hashes, strict=True):
        digest.update(os.fsencode(sample.path))  # file names need not be UTF-8
        digest.update(f"\0{sample.label}\0{sample.split}\0{file_hash}\n".encode())
    return digest.hexdigest()[:16]


def _check_provided_splits(reader_result: ReaderResult, fractions: Mapping[str, float]) -> None:
    """Raise if the folder of a split contains no images of a class, as Kaggle's test images without labels."""
    filled_splits = {row.split for row in reader_result.rows}
    empty_splits = [split for split in SPLITS if split in reader_result.provided_splits and split not in filled_splits]
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
    train_classes = {row.class_name for row in reader_result.rows if row.split in (None, "train")}
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


def _check_splits(rows: Sequence[Row], reader_result: ReaderResult) -> None:
    counts = {split: sum((row.split or "train") == split for row in rows) for split in SPLITS}
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
    kept_positions = set(_sample_positions(samples, per_class, seed))
    new_samples = [
        replace(sample, split=UNUSED_SPLIT) if sample.split == "train" and position not in kept_positions else sample
        for position, sample in enumerate(samples.samples)
    ]
    return samples.replace_splits(new_samples)


def _sample_positions(samples: Samples, per_class: int, seed: int) -> Iterator[int]:
    labels, train_positions = samples.get_labels(), samples.get_positions("train")
    for label in range(len(samples.classes)):
        class_positions = train_positions[labels[train_positions] == label]
        order = np.random.default_rng((seed, label)).permutation(len(class_positions))
        yield from class_positions[order[:per_class]].tolist()
