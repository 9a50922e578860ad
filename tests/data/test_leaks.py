"""Test images whose content or group is also in train or val."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.data.tables import build_hashes, build_sample_table
from thaw.data.leaks import find_leaks, select_clean
from thaw.data.near_copies import CopyPair
from thaw.data.sample_table import Sample
from thaw.data.samples import Samples
from thaw.inference.evaluate import Evaluation
from thaw.metrics.classification import classification_metrics
from thaw.runs.predictions import format_predictions, parse_predictions
from thaw.system.csv_files import read_rows
from thaw.visualization.reports.console import describe_leaks, get_leaks

SPLITS = ("train", "train", "val", "test", "test", "test")


def build_samples(hashes: str = "abcdef", groups: str | None = None) -> Samples:
    samples = [
        Sample(f"{index}.png", index % 2, split, None if groups is None else groups[index])
        for index, split in enumerate(SPLITS)
    ]
    return Samples(Path(), build_sample_table(("ants", "bees"), samples), {}, build_hashes(hashes))


def list_leaks(samples: Samples, copies: tuple[CopyPair, ...] = ()) -> dict[str, list[int]]:
    return {kind: positions.tolist() for kind, positions in find_leaks(samples, copies).items()}


def test_nothing_leaks() -> None:
    assert list_leaks(build_samples()) == {}
    assert list_leaks(build_samples("abcddf", "uvwxxy")) == {}  # equal files and a group within the test images


def test_equal_files_and_groups_leak() -> None:
    assert list_leaks(build_samples("abcaec")) == {"copies": [3, 5]}
    assert list_leaks(build_samples(groups="uvwxvw")) == {"groups": [4, 5]}


def test_copies_in_other_files_leak_with_all_files_of_equal_pixels() -> None:
    def near(first: int, second: int) -> CopyPair:
        return CopyPair(first, second, False, "resized")

    def exact(first: int, second: int) -> CopyPair:
        return CopyPair(first, second, True, "equal pixels, other files")

    samples = build_samples()
    assert list_leaks(samples, (near(0, 4), near(2, 5), near(3, 5))) == {"near_copies": [4, 5]}  # 3 is like 5 alone
    assert list_leaks(samples, (exact(1, 3),)) == {"near_copies": [3]}
    assert list_leaks(samples, (exact(4, 5), near(0, 4))) == {"near_copies": [4, 5]}
    assert list_leaks(samples, (near(4, 5),)) == {}
    equal_files = build_samples("abcaef")
    assert list_leaks(equal_files, (exact(0, 3), near(0, 4))) == {"copies": [3], "near_copies": [4]}


def evaluate(samples: Samples) -> Evaluation:
    """Predict class 0 for all test images: image 4 is right, 3 and 5 are wrong."""
    return Evaluation(samples, samples.get_positions("test"), torch.tensor([[2.0, 1.0]]).repeat(3, 1), {})


def test_an_evaluation_counts_leaks_and_goes_on_without_them() -> None:
    evaluation = evaluate(build_samples("abcaec", "uvwxvw"))
    assert evaluation.count_leaks() == {"copies": 2, "groups": 2}  # image 5 is in both
    assert evaluation.without_leaks() is None
    clean = evaluate(build_samples("abcdec")).without_leaks()
    assert clean is not None
    assert clean.positions.tolist() == [3, 4]
    assert clean.compute_metrics()["accuracy"] == 0.5
    assert select_clean(evaluation.positions, {}).all()


def test_the_accuracy_without_leaks_stands_beside_the_accuracy() -> None:
    logits, labels = torch.eye(2)[[0, 1, 1, 1]], torch.tensor([0, 1, 1, 0])
    metrics = {"test": classification_metrics(logits, labels)}
    assert describe_leaks({}, metrics) == ""
    clean = {"test_without_leaks": classification_metrics(logits[2:], labels[2:])}
    text = describe_leaks({"copies": 2, "groups": 1}, metrics | clean)
    assert text.startswith("2 of 4 test images leak: 2 with equal files in train or val, 1 with a group that is also")
    assert "Without them the accuracy is 0.500 instead of 0.750 (95 % interval " in text
    assert "2 images)" in text
    assert "All 4 test images leak" in describe_leaks({"copies": 4}, metrics)
    assert get_leaks({"data": {"fingerprint": "of version 0.2"}}) == {}


def test_predictions_name_the_groups_only_of_data_that_have_some() -> None:
    logits, positions = torch.eye(2)[[0, 1]], torch.tensor([3, 4])
    for groups, header in (
        ("uvwxvw", "path,label,prediction,probability,group"),
        (None, "path,label,prediction,probability"),
    ):
        text = format_predictions(build_samples(groups=groups), logits, positions)
        assert text.splitlines()[0] == header
        rows = read_rows(text.splitlines())
        assert [row.get("group") for row in rows] == (["x", "v"] if groups else [None, None])
        assert parse_predictions(rows, ("ants", "bees")).predictions.tolist() == [0, 1]
