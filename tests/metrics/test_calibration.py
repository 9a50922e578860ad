"""Calibration, per-class numbers and confused pairs, held against scikit-learn's and against simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from thaw.metrics.calibration import compute_ece_interval, compute_reliability
from thaw.metrics.classification import classification_metrics, wilson_interval
from thaw.metrics.per_class import compute_class_metrics, compute_macro_f1_interval, find_confused_pairs
from thaw.metrics.top_losses import captions, top_losses
from thaw.visualization.plots.training import save_reliability_diagram


def answers(count: int, overconfidence: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    dice = np.random.default_rng(count)
    probabilities = dice.uniform(0.5, 1, count)
    return probabilities, dice.random(count) < probabilities - overconfidence


def test_bins_are_those_of_scikit_learn() -> None:
    probabilities, right = answers(500)
    ours = compute_reliability(probabilities, right)
    shares, means = calibration_curve(right, probabilities, n_bins=15)
    assert ours.accuracy[ours.counts > 0] == pytest.approx(shares)
    assert ours.confidence[ours.counts > 0] == pytest.approx(means)
    assert ours.ece == pytest.approx(np.average(np.abs(shares - means), weights=ours.counts[ours.counts > 0]))


def test_the_interval_of_a_large_error_holds_it_and_that_of_none_begins_near_nought() -> None:
    low, high = compute_ece_interval(*answers(3000, overconfidence=0.2))
    assert low < 0.2 < high
    assert high - low < 0.08
    low, high = compute_ece_interval(*answers(3000))
    assert low < 0.01
    assert low <= compute_reliability(*answers(3000)).ece <= high + 1e-12


def test_certain_and_right_has_no_error(tmp_path: Path) -> None:
    found = compute_reliability(np.ones(4), np.ones(4, dtype=bool))
    assert found.ece == 0
    assert compute_ece_interval(np.ones(4), np.ones(4, dtype=bool)) == (0, 0)
    save_reliability_diagram(found, "four", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


def matrix(classes: int, count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    dice = np.random.default_rng(classes)
    labels = dice.integers(0, classes - 1, count)  # the last class does not occur
    predictions = np.where(dice.random(count) < 0.7, labels, dice.integers(0, classes, count))
    return labels, predictions, confusion_matrix(labels, predictions, labels=range(classes))


@pytest.mark.parametrize("classes", [3, 12])
def test_the_numbers_of_each_class_are_those_of_scikit_learn_with_intervals_around_them(classes: int) -> None:
    labels, predictions, confusion = matrix(classes)
    theirs = precision_recall_fscore_support(labels, predictions, labels=range(classes), zero_division=0)
    for place, one in enumerate(compute_class_metrics(confusion, [str(place) for place in range(classes)])):
        assert (one.precision, one.recall, one.f1, one.count) == pytest.approx([row[place] for row in theirs])
        assert one.recall_ci95 == (wilson_interval(one.recall * one.count, one.count) if one.count else (0, 1))
        assert one.f1_ci95[0] <= one.f1 <= one.f1_ci95[1]
    low, high = compute_macro_f1_interval(confusion)
    assert low < np.mean(theirs[2][:-1]) < high


def test_the_most_confused_pairs_come_first() -> None:
    confusion = np.array([[5, 2, 0], [2, 1, 1], [4, 0, 9]])
    pairs = find_confused_pairs(confusion, "abc", max_pairs=3)
    assert [(one.label, one.prediction, one.count) for one in pairs] == [("c", "a", 4), ("b", "a", 2), ("a", "b", 2)]
    assert pairs[1].fraction == 0.5


def test_intervals_of_balanced_classes_are_those_of_the_plain_share_and_rare_classes_widen_them() -> None:
    def metrics(counts: list[int]) -> dict[str, list[float]]:
        labels = torch.repeat_interleave(torch.arange(2), torch.tensor(counts))
        logits = torch.eye(2)[labels]
        logits[::5] = logits[::5].flip(1)
        found: dict[str, list[float]] = classification_metrics(logits, labels)
        return found

    balanced = metrics([50, 50])
    assert balanced["macro_accuracy_ci95"] == pytest.approx(balanced["accuracy_ci95"])
    rare = metrics([95, 5])
    widths = [rare[f"{key}_ci95"][1] - rare[f"{key}_ci95"][0] for key in ("macro_accuracy", "accuracy")]
    assert widths[0] > 2 * widths[1]


def test_the_worst_are_sure_and_wrong() -> None:
    logits = torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 9.0], [0.0, 9.0]])
    labels = torch.tensor([0, 0, 0, 1])
    chosen = top_losses(logits, labels, 2)
    assert chosen == [2, 1]
    titles, wrong = captions(logits[[*chosen, 0]], [0, 0, 0], ["ant", "bee"])
    assert titles == ["ant, not bee 1.00", "ant, not bee 0.73", "ant 1.00"]
    assert wrong == [True, True, False]
