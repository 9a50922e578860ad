"""Draw the splits that a data set does not have: by fraction or number of images of each class, and by groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from thaw.config.errors import Problem, UserError, format_names
from thaw.data.folds import set_own_splits_aside, split_fold
from thaw.data.groups import split_groups
from thaw.data.readers import ReaderResult
from thaw.data.sample_table import SPLIT_CODES, UNDRAWN_SPLIT, SampleTable


@dataclass(frozen=True)
class SplitSettings:
    """How splits are drawn.

    Attributes:
        fractions: split -> fraction of the train images of each class that it gets, if the data set does not have it.
        seed: `dataset.split_seed`.
        per_class: number of train images of each class, instead of the fractions; see `split_per_class`.
        folds: number of parts into which all images are cut, instead of splits.
        fold: the part that is tested.
        allows_group_leaks: groups may be in several of the splits that the data set has itself.
    """

    fractions: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    per_class: int | None = None
    folds: int | None = None
    fold: int | None = None
    allows_group_leaks: bool = False


def prepare_splits(reader_result: ReaderResult, settings: SplitSettings) -> ReaderResult:
    """Return the rows from which `draw_splits` draws: folds put the splits aside that the data set has itself.

    Raises:
        UserError: if there are folds and none is chosen.
    """
    if settings.folds is None:
        return reader_result
    if settings.fold is None:
        fix = f"fold=0, or -m sweep=folds folds={settings.folds}"
        problem = Problem(f"folds={settings.folds}", "no fold", f"fold=0 to fold={settings.folds - 1}", fix)
        raise UserError("folds without a fold to test.", [problem])
    return set_own_splits_aside(reader_result, settings.folds)


def draw_splits(reader_result: ReaderResult, settings: SplitSettings) -> ReaderResult:
    """Return `reader_result` with the splits that the data set does not provide, and notes about them.

    Splits are drawn from the rows as they were read: an image that `data.exclude` or `data.relabel` names moves no
    other image to another split, so that runs with and without corrections have the same test images but for these.

    Raises:
        UserError: as `split_per_class`, `split_groups` and `split_fold`, and if `per_class` is set for a data set that
            is split.
    """
    if reader_result.uncorrected_rows is not None:
        uncorrected = replace(reader_result, rows=reader_result.uncorrected_rows, uncorrected_rows=None)
        drawn = draw_splits(uncorrected, settings)
        positions = drawn.rows.paths.find_positions(reader_result.rows.paths)
        return replace(drawn, rows=replace(reader_result.rows, splits=drawn.rows.splits[positions]))
    fractions = {
        split: fraction
        for split, fraction in settings.fractions.items()
        if split not in reader_result.provided_splits and fraction > 0
    }
    if settings.folds is not None and settings.fold is not None:
        return split_fold(reader_result, settings.folds, settings.fold, fractions.get("val", 0.0), settings.seed)
    if settings.per_class is None and reader_result.has_groups:
        return split_groups(reader_result, fractions, settings.seed)
    if settings.per_class is None:
        return replace(reader_result, rows=split_stratified(reader_result.rows, fractions, settings.seed))
    if own_splits := sorted(reader_result.provided_splits.keys() - {"train"}):
        got = f"its own {format_names(own_splits)} images"
        subject = f"dataset.per_class={settings.per_class}"
        problem = Problem(subject, got, "a data set without splits", "dataset.per_class=null")
        raise UserError(f"the data set under {reader_result.root} is already split.", [problem])
    rows = split_per_class(reader_result.rows, settings.per_class, settings.fractions["val"], settings.seed)
    return replace(reader_result, rows=rows)


def split_stratified(rows: SampleTable, fractions: Mapping[str, float], seed: int) -> SampleTable:
    """Move the fraction `fractions[split]` of each class's train rows to `split`; at least one stays in train."""

    def assign_splits(num_members: int) -> np.ndarray:
        counts = {split: round(fraction * num_members) for split, fraction in fractions.items()}
        return _assign_in_turn(num_members, counts, "train")

    return _assign_per_class(rows, assign_splits, seed)


def split_per_class(rows: SampleTable, count: int, val_fraction: float, seed: int) -> SampleTable:
    """Assign `count` rows of each class to train, as papers on Caltech101 do, then `val_fraction` of the remaining rows
    to val and all others to test.

    Raises:
        UserError: if classes have at most `count` rows and would have no test images; it lists them.
    """
    members_per_class = zip(rows.list_present_classes(), rows.group_by_class(), strict=True)
    class_sizes = {name: len(members) for name, members in members_per_class}
    if small_classes := [f"{name} ({size})" for name, size in class_sizes.items() if size <= count]:
        max_count = min(class_sizes.values()) - 1
        fix = f"dataset.per_class={max_count}" if max_count > 0 else "dataset.per_class=null"
        problem = Problem(
            f"dataset.per_class={count}", format_names(small_classes), f"at least {count + 1} images per class", fix
        )
        raise UserError("classes with too few images.", [problem])

    def assign_splits(num_members: int) -> np.ndarray:
        counts = {"train": count, "val": round(val_fraction * (num_members - count))}
        return _assign_in_turn(num_members, counts, "test")

    return _assign_per_class(rows, assign_splits, seed)


def _assign_in_turn(num_members: int, counts: Mapping[str, int], last_split: str) -> np.ndarray:
    """Assign the first `counts[split]` members to each split in turn and all others, at least one, to `last_split`.
    Return the code of the split of each, int8 [members]."""
    codes, start = np.full(num_members, SPLIT_CODES[last_split], dtype=np.int8), 0
    for split, count in counts.items():
        num_taken = min(count, num_members - start - 1)
        codes[start : start + num_taken] = SPLIT_CODES[split]
        start += num_taken
    return codes


def _assign_per_class(rows: SampleTable, assign_splits: Callable[[int], np.ndarray], seed: int) -> SampleTable:
    """Shuffle the train rows of each class by (seed, label) and assign their splits; other rows stay unchanged."""
    splits, is_train = rows.splits.copy(), rows.select_splits("train", UNDRAWN_SPLIT)
    for label, class_members in enumerate(rows.group_by_class()):
        members = class_members[is_train[class_members]]
        order = np.random.default_rng((seed, label)).permutation(len(members))
        splits[members[order]] = assign_splits(len(members))
    return replace(rows, splits=splits)
