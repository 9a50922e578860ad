"""Which images exclude.csv and relabel.csv name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tests.data.tables import build_sample_table
from thaw.auditing.findings import Finding
from thaw.auditing.group_results import describe_known_groups, pair_with_training_image
from thaw.auditing.suggestions import CopyGroups, suggest_exclusions, suggest_relabelings
from thaw.data.readers import Correction
from thaw.data.sample_table import Sample
from thaw.data.samples import Samples

OWN = ("train", "val", "test")


def build_samples(rows: Sequence[tuple[str, str]], own_splits: tuple[str, ...] = OWN, **fields: object) -> Samples:
    """Build samples `0`, `1`, ... of (split, class)."""
    classes = tuple(sorted({name for _, name in rows}))
    samples = [Sample(str(index), classes.index(name), split) for index, (split, name) in enumerate(rows)]
    table = build_sample_table(classes, samples)
    return Samples(Path("root"), table, {}, own_splits=own_splits, **fields)  # type: ignore[arg-type]


def suggest(
    samples: Samples, exact: Sequence[int], near: Sequence[int], scores: Sequence[float] = (), blank: Sequence[int] = ()
) -> list[tuple[str, str]]:
    label_scores = np.array(scores or [0.0] * len(samples.samples))
    copies = CopyGroups(np.array(exact), np.array(near), label_scores)
    return [(row.path, row.other_path) for row in suggest_exclusions(copies, blank, samples)]


def test_the_test_image_of_copies_across_splits_stays() -> None:
    rows = [("test", "a"), ("train", "a"), ("val", "a"), ("train", "a"), ("val", "a"), ("train", "a"), ("val", "b")]
    assert suggest(build_samples(rows), range(7), [0, 0, 0, 3, 3, 5, 6]) == [("2", "0"), ("1", "0"), ("3", "4")]


def test_exact_copies_in_a_split_leave_one_and_near_copies_stay() -> None:
    rows = [("train", "a")] * 5 + [("test", "a"), ("train", "b"), ("test", "b")]
    assert suggest(build_samples(rows), [0, 0, 0, 3, 4, 5, 6, 7], [0, 0, 0, 3, 3, 5, 6, 7]) == [("1", "0"), ("2", "0")]


def test_one_of_each_group_stays_where_splits_are_drawn() -> None:
    rows = [("train", "a")] * 5 + [("test", "a"), ("train", "b"), ("test", "b")]
    near = [0, 0, 0, 3, 3, 3, 6, 7]
    excluded = suggest(build_samples(rows, own_splits=()), range(8), near)
    assert excluded == [("1", "0"), ("2", "0"), ("3", "5"), ("4", "5")]


def test_of_copies_with_several_labels_the_surest_stays() -> None:
    samples = build_samples(
        [("train", "a"), ("train", "b"), ("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")]
    )
    assert suggest(samples, [0, 0, 2, 3, 4, 5], [0, 0, 2, 3, 4, 5], [-1.0, 2.0, 0, 0, 0, 0]) == [("0", "1")]


def test_the_last_train_image_of_a_class_and_the_last_of_a_split_stay() -> None:
    samples = build_samples([("train", "a"), ("train", "a"), ("train", "b"), ("test", "a")])
    assert suggest(samples, range(4), range(4), blank=[0, 1, 2, 3]) == [("0", "")]


def test_images_that_are_left_out_or_corrected_already_stay_in_the_files() -> None:
    corrections = {
        "excluded": Correction(1, "0", ("gone",)),
        "relabeled": Correction(1, "0", ("1", "gone")),
    }
    samples = build_samples([("train", "a"), ("train", "b"), ("test", "a"), ("test", "b")], corrections=corrections)
    assert suggest(samples, range(4), range(4)) == [("gone", "")]
    findings = [Finding("wrong_label", path="0", label="a", suggested_label="b"), Finding("outlier", path="2")]
    assert [(row.path, row.label) for row in suggest_relabelings(findings, [], samples)] == [("1", "b"), ("0", "b")]


def test_groups_on_both_sides_of_own_splits_are_counted() -> None:
    names = ["p1", "p2", "p1", "p3", "p2"]
    splits = ["train", "val", "test", "test", "train"]
    samples = [
        Sample(str(index), 0, split, name) for index, (name, split) in enumerate(zip(names, splits, strict=True))
    ]
    table = Samples(Path("root"), build_sample_table(("a",), samples), {})
    assert pair_with_training_image(table) == [(2, 0)]
    result = describe_known_groups(table, 0.9, 0.7)
    assert result.summary == "1 test image of 3 groups"
    assert "0.900 of cases with random folds and in 0.700" in result.certainty
    assert "20.0 points more" in result.certainty
    (finding,) = result.findings
    assert (finding.path, finding.other_path, finding.note) == ("2", "0", "group p1 is also in train or val")
