"""Cut all images into folds, each of which is tested once: stratified by class, and by whole groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from thaw.config.errors import Problem, UserError, format_count, format_names
from thaw.data.group_partition import divide_groups
from thaw.data.groups import GroupedRows, check_coverage, check_num_groups, describe_groups, index_groups
from thaw.data.readers import ReaderResult
from thaw.data.sample_table import SPLIT_CODES, SPLITS, UNDRAWN_SPLIT, SampleTable

MAX_LISTED_NAMES = 5


def set_own_splits_aside(reader_result: ReaderResult, folds: int) -> ReaderResult:
    """Return the rows without the splits that the data set has itself, and a note of that."""
    own_splits = [split for split in SPLITS if split in reader_result.provided_splits]
    note = f"folds={folds}: the data set's own splits ({format_names(own_splits)}) are put aside"
    notes = (*reader_result.notes, *([note] if own_splits else []))
    return replace(reader_result.change_rows(_clear_splits), provided_splits={}, notes=notes)


def _clear_splits(rows: SampleTable) -> SampleTable:
    return replace(rows, splits=np.full(len(rows), SPLIT_CODES[UNDRAWN_SPLIT], dtype=np.int8))


def split_fold(reader_result: ReaderResult, folds: int, fold: int, val_fraction: float, seed: int) -> ReaderResult:
    """Return the rows with the splits of one fold: test has its images, val the fraction `val_fraction` of the others.

    All folds of one `seed` are parts of one partition, so that each image is tested once. Classes are distributed
    evenly; groups are never divided.

    Raises:
        UserError: if there are too few images or groups for so many folds.
    """
    setting = reader_result.group_setting
    if not reader_result.has_groups:
        rows = _split_fold_of_images(reader_result.rows, folds, fold, val_fraction, seed)
        return replace(reader_result, rows=rows)
    grouped = index_groups(reader_result.rows)
    is_tested = _cut_groups(grouped, folds, seed, setting)[grouped.row_groups] == fold
    splits = np.full(len(reader_result.rows), SPLIT_CODES["test"], dtype=np.int8)
    other_rows = reader_result.rows.subset(np.flatnonzero(~is_tested))
    splits[~is_tested] = _split_groups_off(other_rows, val_fraction, (seed, fold), setting)
    rows = replace(reader_result.rows, splits=splits)
    return replace(reader_result, rows=rows, notes=(*reader_result.notes, describe_groups(setting, rows)))


def _split_groups_off(rows: SampleTable, val_fraction: float, seed: Sequence[int], setting: str) -> np.ndarray:
    """Move the fraction `val_fraction` of `rows`, in whole groups, to val and the others to train. Return the code of
    the split of each, int8 [rows]."""
    if not val_fraction:
        return np.full(len(rows), SPLIT_CODES["train"], dtype=np.int8)
    grouped, splits = index_groups(rows), ("train", "val")
    check_num_groups(grouped, splits, setting)
    parts = divide_groups(grouped.row_labels, grouped.row_groups, (1 - val_fraction, val_fraction), seed)
    check_coverage(grouped, parts, splits, setting)
    codes = np.array([SPLIT_CODES[split] for split in splits], dtype=np.int8)
    row_codes: np.ndarray = codes[parts[grouped.row_groups]]
    return row_codes


def _cut_groups(grouped: GroupedRows, folds: int, seed: int, setting: str) -> np.ndarray:
    """Return the fold of each group, int64 [groups]."""
    if len(grouped.groups) < folds:
        got = f"{format_count(len(grouped.groups), 'group')} by {setting}"
        fix = f"folds={len(grouped.groups)}" if len(grouped.groups) > 1 else "images of more groups"
        problem = Problem(f"folds={folds}", got, f"at most {len(grouped.groups)}, a group for each fold", fix)
        raise UserError("more folds than groups.", [problem])
    parts = divide_groups(grouped.row_labels, grouped.row_groups, [1 / folds] * folds, (seed,), is_equal=True)
    folds_per_class = np.zeros((len(grouped.classes), folds), dtype=bool)
    folds_per_class[grouped.row_labels, parts[grouped.row_groups]] = True
    groups_per_class = grouped.list_groups_per_class()
    if whole_classes := [grouped.classes[label] for label in np.flatnonzero(folds_per_class.sum(1) < 2)]:
        names = [f"{name} ({', '.join(groups_per_class[name][:MAX_LISTED_NAMES])})" for name in whole_classes]
        got = f"classes whose groups are all in one fold: {format_names(names, MAX_LISTED_NAMES)}"
        fix = "images of more groups, or other folds"
        problem = Problem(f"folds={folds}", got, f"train images of every class in each fold, by {setting}", fix)
        raise UserError("too few groups of a class.", [problem])
    return parts


def _split_fold_of_images(rows: SampleTable, folds: int, fold: int, val_fraction: float, seed: int) -> SampleTable:
    members_per_class = dict(zip(rows.list_present_classes(), rows.group_by_class(), strict=True))
    _check_class_sizes({name: len(members) for name, members in members_per_class.items()}, folds)
    splits, num_dealt = rows.splits.copy(), 0
    for label, members in enumerate(members_per_class.values()):
        order = np.random.default_rng((seed, label)).permutation(len(members))
        parts = (np.arange(len(members)) + num_dealt) % folds  # goes on where the last class has ended
        num_dealt += len(members)
        distances = (parts - fold) % folds  # 0 is tested; val begins with the next part, so it differs between folds
        ranked = members[order[np.argsort(distances, kind="stable")]]
        num_test = int((distances == 0).sum())
        num_val = min(round(val_fraction * (len(members) - num_test)), len(members) - num_test - 1)
        splits[ranked] = SPLIT_CODES["train"]
        splits[ranked[:num_test]] = SPLIT_CODES["test"]
        splits[ranked[num_test : num_test + num_val]] = SPLIT_CODES["val"]
    return replace(rows, splits=splits)


def _check_class_sizes(sizes: dict[str, int], folds: int) -> None:
    small_classes = {name: size for name, size in sorted(sizes.items()) if size < folds}
    if not small_classes:
        return
    names = format_names([f"{name} ({size})" for name, size in small_classes.items()], MAX_LISTED_NAMES)
    smallest = min(small_classes.values())
    fix = f"folds={smallest}" if smallest > 1 else f"more images of {format_names(small_classes, MAX_LISTED_NAMES)}"
    got, valid = f"classes of fewer images: {names}", f"at least {folds} images of each class"
    raise UserError("more folds than images of a class.", [Problem(f"folds={folds}", got, valid, fix)])
