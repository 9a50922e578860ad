"""Calibration, per-class compute_metrics and confused pairs match scikit-learn and simulation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from thaw.metrics.calibration import compute_ece_interval, compute_reliability
from thaw.metrics.classification import classification_metrics, top_losses
from thaw.metrics.per_class import (
    compute_class_metrics,
    find_confused_pairs,
    wilson_interval,
)
from thaw.visualization.plots.training import save_reliability_diagram


def sample_predictions(count: int, overconfidence: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    probabilities = rng.uniform(0.5, 1, count)
    return probabilities, rng.random(count) < probabilities - overconfidence


def test_bins_match_scikit_learn() -> None:
    probabilities, correct = sample_predictions(500)
    reliability = compute_reliability(probabilities, correct)
    accuracies, confidences = calibration_curve(correct, probabilities, n_bins=15)
    assert reliability.accuracy[reliability.counts > 0] == pytest.approx(accuracies)
    assert reliability.confidence[reliability.counts > 0] == pytest.approx(confidences)
    assert reliability.ece == pytest.approx(
        np.average(np.abs(accuracies - confidences), weights=reliability.counts[reliability.counts > 0])
    )


def test_the_interval_contains_a_large_error_and_starts_near_zero_without_one() -> None:
    low, high = compute_ece_interval(*sample_predictions(3000, overconfidence=0.2))
    assert low < 0.2 < high
    assert high - low < 0.08
    low, high = compute_ece_interval(*sample_predictions(3000))
    assert low < 0.01
    assert low <= compute_reliability(*sample_predictions(3000)).ece <= high + 1e-12


def test_certain_correct_predictions_have_no_calibration_error(tmp_path: Path) -> None:
    reliability = compute_reliability(np.ones(4), np.ones(4, dtype=bool))
    assert reliability.ece == 0
    assert compute_ece_interval(np.ones(4), np.ones(4, dtype=bool)) == (0, 0)
    save_reliability_diagram(reliability, "four", tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 0


def sample_confusion(classes: int, count: int = 400) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(classes)
    labels = rng.integers(0, classes - 1, count)  # the last class does not occur
    predictions = np.where(rng.random(count) < 0.7, labels, rng.integers(0, classes, count))
    return labels, predictions, confusion_matrix(labels, predictions, labels=range(classes))


@pytest.mark.parametrize("classes", [3, 12])
def test_class_metrics_match_scikit_learn_and_lie_in_their_intervals(classes: int) -> None:
    labels, predictions, confusion = sample_confusion(classes)
    expected = precision_recall_fscore_support(labels, predictions, labels=range(classes), zero_division=0)
    for index, row in enumerate(compute_class_metrics(confusion, [str(index) for index in range(classes)])):
        assert (row.precision, row.recall, row.f1, row.count) == pytest.approx([values[index] for values in expected])
        assert row.recall_ci95 == (wilson_interval(row.recall * row.count, row.count) if row.count else (0, 1))
        assert row.f1_ci95[0] <= row.f1 <= row.f1_ci95[1]


def test_the_most_confused_pairs_come_first() -> None:
    confusion = np.array([[5, 2, 0], [2, 1, 1], [4, 0, 9]])
    pairs = find_confused_pairs(confusion, "abc", max_pairs=3)
    assert [(pair.label, pair.prediction, pair.count) for pair in pairs] == [
        ("c", "a", 4),
        ("b", "a", 2),
        ("a", "b", 2),
    ]
    assert pairs[1].fraction == 0.5


def test_the_macro_interval_is_the_plain_one_for_balanced_classes_and_wider_for_rare_ones() -> None:
    def compute_metrics(counts: list[int]) -> dict[str, list[float]]:
        labels = torch.repeat_interleave(torch.arange(2), torch.tensor(counts))
        logits = torch.eye(2)[labels]
        logits[::5] = logits[::5].flip(1)
        result: dict[str, list[float]] = classification_metrics(logits, labels)
        return result

    balanced = compute_metrics([50, 50])
    assert balanced["macro_accuracy_ci95"] == pytest.approx(balanced["accuracy_ci95"])
    rare = compute_metrics([95, 5])
    widths = [rare[f"{key}_ci95"][1] - rare[f"{key}_ci95"][0] for key in ("macro_accuracy", "accuracy")]
    assert widths[0] > 2 * widths[1]


def test_top_losses_are_confident_and_wrong() -> None:
    logits = torch.tensor([[9.0, 0.0], [0.0, 1.0], [0.0, 9.0], [0.0, 9.0]])
    labels = torch.tensor([0, 0, 0, 1])
    indices = top_losses(logits, labels, 2)
    assert indices == [2, 1]
