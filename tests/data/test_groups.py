"""No group of images is on two sides of a split, and splits come as close to their fractions as the groups allow."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.model_selection import StratifiedGroupKFold

from tests.data.tables import Row, build_rows_table, list_rows
from thaw.config.errors import UserError
from thaw.data.group_partition import divide_groups
from thaw.data.groups import check_group_leaks, find_groups, index_groups, split_groups
from thaw.data.readers import ReaderResult
from thaw.data.sample_table import SPLITS
from thaw.data.samples import split_reader_result
from thaw.data.splits import SplitSettings

FRACTIONS = {"val": 0.15, "test": 0.15}
SETTING = "dataset.group_column=patient"
LEAK = "1 of 3 groups are in several splits of the data set, with 2 of 3 test images: b (train, test)"
LEAK_FIX = "data.group_leak=warn, which counts these test images, or folds=5, which puts the splits aside"


def build_result(rows: Sequence[Row], setting: str = SETTING, **changes: object) -> ReaderResult:
    table = build_rows_table(rows)
    result = ReaderResult(Path("data"), table, {}, {}, "layout", "{split}", "{names}", group_setting=setting)
    return replace(result, **changes)  # type: ignore[arg-type]


def build_rows(counts: Sequence[Sequence[int]]) -> list[Row]:
    """Return `counts[group][label]` rows of each group and class."""
    return [
        Row(f"{label}/{group:02}_{number:03}.png", f"class {label}", "", f"group {group}")
        for group, row in enumerate(counts)
        for label, count in enumerate(row)
        for number in range(count)
    ]


def find_message(result: ReaderResult, fractions: dict[str, float] = FRACTIONS) -> str:
    with pytest.raises(UserError) as error_info:
        split_groups(result, fractions, 0)
    return str(error_info.value)


def list_splits(rows: Sequence[Row]) -> dict[str, set[str]]:
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault(str(row.group), set()).add(row.split)
    return splits


def is_splittable(counts: np.ndarray) -> bool:
    """Return whether any assignment of the groups fills train, val and test, and train with every class."""
    return any(
        {*parts} == {0, 1, 2} and counts[np.array(parts) == 0].any(axis=0).all()
        for parts in itertools.product(range(3), repeat=len(counts))
    )


@pytest.mark.parametrize("number", range(40))
def test_no_group_is_in_two_splits_and_only_what_is_impossible_is_refused(number: int) -> None:
    rng = np.random.default_rng(number)
    num_groups = int(rng.integers(3, 7))
    counts = rng.integers(1, 12, (num_groups, 3)) * (rng.random((num_groups, 3)) < 0.5)
    counts[0] += counts.sum(0) == 0  # no class without images
    rows = build_rows(counts[counts.any(axis=1)].tolist())
    if not is_splittable(counts[counts.any(axis=1)]):
        with pytest.raises(UserError, match="too few groups"):
            split_reader_result(build_result(rows), SplitSettings(FRACTIONS, number))
        return
    check_splits(rows, list_rows(split_reader_result(build_result(rows), SplitSettings(FRACTIONS, number)).rows))


def check_splits(rows: Sequence[Row], split_rows: Sequence[Row]) -> None:
    assert Counter(row.path for row in split_rows) == Counter(row.path for row in rows)
    assert all(len(splits) == 1 for splits in list_splits(split_rows).values())
    assert {row.class_name for row in split_rows if row.split == "train"} == {row.class_name for row in rows}
    assert {row.split for row in split_rows} == {*SPLITS}


@pytest.mark.parametrize("folds", [2, 3, 5])
def test_no_group_is_in_two_folds_and_each_image_is_tested_once(folds: int) -> None:
    for seed in range(5):
        rows = build_rows(np.random.default_rng(seed).integers(0, 12, (6 * folds, 4)).tolist())
        settings = [SplitSettings(FRACTIONS, seed, folds=folds, fold=fold) for fold in range(folds)]
        results = [split_reader_result(build_result(rows), setting) for setting in settings]
        for result in results:
            check_splits(rows, list_rows(result.rows))
        tested = Counter(row.path for result in results for row in result.rows if row.split == "test")
        assert tested == Counter(row.path for row in rows)


def test_splits_do_not_depend_on_the_order_of_the_rows() -> None:
    rows = build_rows(np.random.default_rng(0).integers(0, 9, (30, 4)).tolist())
    first, second = (split_groups(build_result(order), FRACTIONS, 3) for order in (rows, rows[::-1]))
    assert set(first.rows) == set(second.rows)
    assert set(first.rows) != set(split_groups(build_result(rows), FRACTIONS, 4).rows)


def count_deviations(labels: np.ndarray, row_parts: np.ndarray, fraction: float) -> float:
    """Return how far part 1 is from `fraction` of each class, as a mean over the classes."""
    return float(
        np.abs(np.bincount(labels[row_parts == 1], minlength=labels.max() + 1) / np.bincount(labels) - fraction).mean()
    )


def test_few_large_groups_are_divided_more_evenly_than_by_scikit_learn() -> None:
    ours, theirs = [], []
    for number in range(5):
        rng = np.random.default_rng(number)
        sizes = np.exp(rng.normal(4, 1, 12)).astype(int) + 1
        counts = [rng.multinomial(size, rng.dirichlet(np.full(5, 0.5))).tolist() for size in sizes]
        grouped = index_groups(build_rows_table(build_rows(counts)))
        labels, groups = grouped.row_labels, grouped.row_groups
        ours.append(count_deviations(labels, divide_groups(labels, groups, (0.85, 0.15), (0,))[groups], 0.15))
        folds = StratifiedGroupKFold(7, shuffle=True, random_state=0).split(labels, labels, groups)
        theirs.append(count_deviations(labels, np.isin(np.arange(len(labels)), next(folds)[1]).astype(int), 0.15))
    assert np.mean(ours) < 0.5 * np.mean(theirs)


def test_many_groups_have_the_fractions_of_all_images_and_of_each_class() -> None:
    rows = build_rows(np.random.default_rng(1).integers(0, 4, (200, 3)).tolist())
    result = split_groups(build_result(rows), FRACTIONS, 0)
    sizes = Counter((row.class_name, row.split) for row in list_rows(result.rows))
    for name, total in Counter(row.class_name for row in rows).items():
        assert sizes[name, "test"] / total == pytest.approx(0.15, abs=0.01)
        assert sizes[name, "val"] / total == pytest.approx(0.15, abs=0.01)
    assert result.notes[0].startswith(f"199 groups by {SETTING}, of at most 9 images: train 70%, val 15%, test 15%")


def test_a_class_of_two_groups_is_trained_and_tested_and_one_of_a_single_group_trained() -> None:
    counts = [[5, 0, 0]] * 10 + [[0, 5, 0]] * 2 + [[0, 0, 5]]
    for seed in range(10):
        result = split_groups(build_result(build_rows(counts)), FRACTIONS, seed)
        splits = {row.class_name: set[str]() for row in list_rows(result.rows)}
        for row in list_rows(result.rows):
            splits[row.class_name].add(row.split)
        assert splits == {"class 0": {*SPLITS}, "class 1": {"train", "test"}, "class 2": {"train"}}
        assert result.warnings == ("no test images of class 2: too few groups",)


def test_too_few_groups_are_an_error_that_counts_them() -> None:
    assert find_message(build_result(build_rows([[5, 5], [5, 5]]))) == "\n".join(
        [
            "too few groups to split.",
            f"  {SETTING}",
            "      got:   2 groups: group 0, group 1",
            "      valid: at least 3, one for each of train, test, val",
            "      fix:   images of more groups, or groups that are smaller; dataset.fractions.val=0 trains without "
            "validation",
        ]
    )


def test_classes_that_need_all_their_groups_for_training_are_named() -> None:
    assert find_message(build_result(build_rows([[5, 0], [0, 5]])), {"test": 0.2}) == "\n".join(
        [
            "too few groups to split.",
            f"  {SETTING}",
            "      got:   2 groups; classes of fewer than 2 groups: class 0 (group 0), class 1 (group 1)",
            "      valid: train images of every class, and other groups for test",
            "      fix:   images of more groups, or groups that are smaller",
        ]
    )


def test_a_pattern_says_the_group_of_each_image() -> None:
    rows = [Row(f"ant/p{patient}_{number}.png", "ant") for patient in (1, 23) for number in range(2)]
    result = find_groups(build_result(rows, setting=""), r"/p(\d+)_")
    assert result.rows.list_groups() == ["1", "1", "23", "23"]
    assert result.group_setting == r"dataset.group_pattern=/p(\d+)_"
    assert result.warnings == ()
    single = find_groups(build_result(rows, setting=""), "(.*)")
    assert single.warnings == ("dataset.group_pattern=(.*): each of the 4 images is a group of its own",)


@pytest.mark.parametrize("pattern", ["/p([0-9]+)", "/(p[0-9]*)?"])
def test_images_that_a_pattern_does_not_match_are_counted_and_named(pattern: str) -> None:
    rows = [
        *(Row(f"ant/p{number}.png", "ant") for number in range(3)),
        Row("ant/x.png", "ant"),
        Row("ant/y.png", "ant"),
    ]
    with pytest.raises(UserError) as error_info:
        find_groups(build_result(rows, setting=""), pattern)
    assert str(error_info.value) == "\n".join(
        [
            "images without a group.",
            f"  dataset.group_pattern={pattern}",
            "      got:   2 of 5 images without a group: ant/x.png, ant/y.png",
            "      valid: one each",
            "      fix:   another pattern, or data.exclude=FILE leaves these images out",
        ]
    )
    assert not find_groups(build_result(rows, setting=""), pattern, is_evaluation=True).has_groups


def build_leaking_result() -> ReaderResult:
    rows = [
        Row(f"{split}/{group}{number}.png", "ant", split, group)
        for split, group, number in [
            ("train", "a", 0),
            ("train", "b", 0),
            ("test", "b", 1),
            ("test", "b", 2),
            ("test", "c", 0),
        ]
    ]
    return build_result(rows, provided_splits={"train": "train/", "test": "test/"})


def test_groups_in_two_splits_of_the_data_set_are_an_error_with_the_fix() -> None:
    with pytest.raises(UserError) as error_info:
        check_group_leaks(build_leaking_result(), is_allowed=False)
    assert str(error_info.value) == "\n".join(
        [
            "images of one group are in several splits.",
            f"  {SETTING}",
            f"      got:   {LEAK}",
            "      valid: each group in one split",
            f"      fix:   {LEAK_FIX}",
        ]
    )


def test_groups_in_two_splits_can_be_allowed_with_a_warning() -> None:
    result = check_group_leaks(build_leaking_result(), is_allowed=True)
    assert result.warnings == (f"{SETTING}: {LEAK}",)
