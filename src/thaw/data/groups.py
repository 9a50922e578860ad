"""Groups of images that belong together, such as those of a patient or a video: find, check and split them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from thaw.config.errors import Problem, UserError, format_names
from thaw.data.group_partition import divide_groups
from thaw.data.readers import ReaderResult, escape_path, normalize_class_name
from thaw.data.sample_table import NO_GROUP, SPLIT_CODES, SPLIT_NAMES, UNDRAWN_SPLIT, SampleTable

MAX_LISTED_NAMES = 5
PRIORITY = ("train", "test", "val")  # a class of too few groups is in the first of these splits


def find_groups(reader_result: ReaderResult, pattern: str | None, *, is_evaluation: bool = False) -> ReaderResult:
    """Return the rows with their groups: what group 1 of the regular expression `pattern` finds in their paths, or what
    the reader has found in a column. Without either there are none.

    An evaluation may have other images than the training; if some have no group, it has no groups.

    Raises:
        UserError: with the number and the first names of images without a group.
    """
    if pattern is not None:
        expression = re.compile(pattern)

        def add_groups(rows: SampleTable) -> SampleTable:
            return rows.replace_groups([_search_group(expression, path) for path in rows.paths])

        setting = f"dataset.group_pattern={pattern}"
        reader_result = replace(reader_result.change_rows(add_groups), group_setting=setting)
    if not reader_result.has_groups:
        return reader_result
    missing_positions = np.flatnonzero(reader_result.rows.groups == NO_GROUP)
    if len(missing_positions) and is_evaluation:
        without_groups = reader_result.change_rows(lambda rows: rows.replace_groups([None] * len(rows)))
        return replace(without_groups, group_setting="")
    if len(missing_positions):
        missing_paths = [escape_path(reader_result.rows.paths[position]) for position in missing_positions.tolist()]
        got = f"{len(missing_paths)} of {len(reader_result.rows)} images without a group: "
        got += format_names(missing_paths, MAX_LISTED_NAMES)
        fix = "another pattern" if pattern is not None else "a cell for each image"
        fix += ", or data.exclude=FILE leaves these images out"
        raise UserError("images without a group.", [Problem(reader_result.group_setting, got, "one each", fix)])
    reader_result = reader_result.change_rows(lambda rows: rows.subset(np.flatnonzero(rows.groups != NO_GROUP)))
    warnings = (*reader_result.warnings, *_describe_useless_groups(reader_result))
    return replace(reader_result, warnings=warnings)


def _search_group(expression: re.Pattern[str], path: str) -> str:
    match = expression.search(path)
    return normalize_class_name(match[1] or "") if match else ""


def _describe_useless_groups(reader_result: ReaderResult) -> Iterator[str]:
    num_groups, num_images = len(np.unique(reader_result.rows.groups)), len(reader_result.rows)
    if num_groups == num_images:
        yield f"{reader_result.group_setting}: each of the {num_images} images is a group of its own"


@dataclass(frozen=True)
class GroupedRows:
    """The classes and groups of rows: `row_labels` and `row_groups`, int64 [rows], are indices into the names of those
    that have rows, sorted."""

    classes: list[str]
    groups: list[str]
    row_labels: np.ndarray
    row_groups: np.ndarray

    def list_groups_per_class(self) -> dict[str, list[str]]:
        """Return the groups of each class, both sorted."""
        groups: dict[str, list[str]] = {}
        for label, group in np.unique(np.stack([self.row_labels, self.row_groups], axis=1), axis=0).tolist():
            groups.setdefault(self.classes[label], []).append(self.groups[group])
        return groups


def index_groups(rows: SampleTable) -> GroupedRows:
    """Return the classes and groups of `rows`, all of which have one."""
    labels, row_labels = np.unique(rows.labels, return_inverse=True)
    groups, row_groups = np.unique(rows.groups, return_inverse=True)
    classes = [rows.classes[label] for label in labels.tolist()]
    names = [rows.group_names[group] for group in groups.tolist()]
    return GroupedRows(classes, names, row_labels.astype(np.int64), row_groups.astype(np.int64))


def split_groups(reader_result: ReaderResult, fractions: Mapping[str, float], seed: int) -> ReaderResult:
    """Move whole groups of train rows to the splits of `fractions`, so that each split comes as close to its fraction
    of all images, and of each class, as the groups allow.

    Raises:
        UserError: if there are fewer groups than splits, or a class or a split would have no images.
    """
    rows = reader_result.rows
    train_positions = np.flatnonzero(rows.select_splits("train", UNDRAWN_SPLIT))
    grouped = index_groups(rows.subset(train_positions))
    splits = [split for split in PRIORITY if split == "train" or split in fractions]
    shares = [1 - sum(fractions.values()), *(fractions[split] for split in splits[1:])]
    if len(splits) == 1:
        return _add_notes(reader_result, rows)
    check_num_groups(grouped, splits, reader_result.group_setting)
    parts = divide_groups(grouped.row_labels, grouped.row_groups, shares, (seed,))
    check_coverage(grouped, parts, splits, reader_result.group_setting)
    row_splits = rows.splits.copy()
    row_splits[train_positions] = np.array([SPLIT_CODES[split] for split in splits])[parts[grouped.row_groups]]
    return _add_notes(reader_result, replace(rows, splits=row_splits))


def check_num_groups(grouped: GroupedRows, splits: Sequence[str], setting: str) -> None:
    """Raise UserError if there are fewer groups than `splits`."""
    if len(grouped.groups) < len(splits):
        count = "1 group" if len(grouped.groups) == 1 else f"{len(grouped.groups)} groups"
        got = f"{count}: {format_names(grouped.groups, MAX_LISTED_NAMES)}"
        valid = f"at least {len(splits)}, one for each of {format_names(splits)}"
        raise UserError("too few groups to split.", [Problem(setting, got, valid, _suggest_fewer_splits(splits))])


def check_coverage(grouped: GroupedRows, parts: np.ndarray, splits: Sequence[str], setting: str) -> None:
    """Raise UserError if a split is empty, or train has no images of a class. `parts` is int64 [groups]."""
    empty_splits = [split for index, split in enumerate(splits) if not (parts == index).any()]
    train_labels = set(grouped.row_labels[parts[grouped.row_groups] == 0].tolist())
    missing_classes = [name for label, name in enumerate(grouped.classes) if label not in train_labels]
    if not empty_splits and not missing_classes:
        return
    few = {name: groups for name, groups in grouped.list_groups_per_class().items() if len(groups) < len(splits)}
    classes = format_names([f"{name} ({', '.join(groups)})" for name, groups in few.items()], MAX_LISTED_NAMES)
    got = f"{len(grouped.groups)} groups; classes of fewer than {len(splits)} groups: {classes or 'none'}"
    valid = f"train images of every class, and other groups for {format_names(splits[1:])}"
    raise UserError("too few groups to split.", [Problem(setting, got, valid, _suggest_fewer_splits(splits))])


def _suggest_fewer_splits(splits: Sequence[str]) -> str:
    fix = "images of more groups, or groups that are smaller"
    return f"{fix}; dataset.fractions.val=0 trains without validation" if "val" in splits else fix


def _add_notes(reader_result: ReaderResult, rows: SampleTable) -> ReaderResult:
    """Return `reader_result` with `rows`, a note on their splits, and a warning of classes without test images."""
    note, warning = describe_groups(reader_result.group_setting, rows), _describe_untested_classes(rows)
    notes, warnings = (*reader_result.notes, note), (*reader_result.warnings, *warning)
    return replace(reader_result, rows=rows, notes=notes, warnings=warnings)


def describe_groups(setting: str, rows: SampleTable) -> str:
    """Return a note: how many groups there are, how large, and which part of the images each split has."""
    sizes = np.unique(rows.groups, return_counts=True)[1]
    counts = {"train": rows.select_splits("train", UNDRAWN_SPLIT).sum()}
    counts |= {split: rows.select_splits(split).sum() for split in ("val", "test")}
    shares = ", ".join(f"{split} {count / len(rows):.0%}" for split, count in counts.items())
    return f"{len(sizes)} groups by {setting}, of at most {sizes.max()} images: {shares} of the images"


def _describe_untested_classes(rows: SampleTable) -> Iterator[str]:
    tested = np.unique(rows.labels[rows.select_splits("test")])
    names = [rows.classes[label] for label in np.setdiff1d(rows.labels, tested).tolist()]
    if len(tested) and names:
        yield f"no test images of {format_names(names, MAX_LISTED_NAMES)}: too few groups"


def check_group_leaks(reader_result: ReaderResult, *, is_allowed: bool) -> ReaderResult:
    """Check that no group is in two of the splits that the data set has itself. If that `is_allowed`, the result has a
    warning.

    Raises:
        UserError: with the number of such groups and of their test images.
    """
    rows = reader_result.rows
    is_provided = rows.select_splits(*reader_result.provided_splits) & (rows.groups != NO_GROUP)
    splits: dict[int, list[str]] = {}
    pairs = np.unique(np.stack([rows.groups[is_provided], rows.splits[is_provided]], axis=1), axis=0)
    for group, split in pairs.tolist():
        splits.setdefault(group, []).append(SPLIT_NAMES[split])
    leaked = {group: sorted(names, key=PRIORITY.index) for group, names in splits.items() if len(names) > 1}
    if not leaked:
        return reader_result
    test_groups = rows.groups[rows.select_splits("test")]
    num_leaked = np.isin(test_groups, list(leaked)).sum()
    descriptions = [f"{rows.group_names[group]} ({', '.join(names)})" for group, names in leaked.items()]
    got = f"{len(leaked)} of {len(splits)} groups are in several splits of the data set, with {num_leaked} of "
    got += f"{len(test_groups)} test images: {format_names(descriptions, MAX_LISTED_NAMES)}"
    if is_allowed:
        return replace(reader_result, warnings=(*reader_result.warnings, f"{reader_result.group_setting}: {got}"))
    fix = "data.group_leak=warn, which counts these test images, or folds=5, which puts the splits aside"
    problem = Problem(reader_result.group_setting, got, "each group in one split", fix)
    raise UserError("images of one group are in several splits.", [problem])
