"""Metrics of ranks and counts agree with scikit-learn; their intervals with a bootstrap that is written out."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics

from thaw.metrics.bootstrap import compute_percentile_interval, iter_weights
from thaw.metrics.classification import classification_metrics
from thaw.metrics.intervals import compute_weighted_metrics
from thaw.metrics.per_class import wilson_interval


def draw_predictions(
    num_images: int, num_classes: int, seed: int = 0, decimals: int = 12
) -> tuple[np.ndarray, np.ndarray]:
    """Draw probabilities and labels; few `decimals` give many equal scores."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, num_classes, num_images)
    logits = rng.normal(size=(num_images, num_classes)) + 1.2 * np.eye(num_classes)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return probabilities.round(decimals), labels


def compute_expected(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    classes, predictions = np.unique(labels), probabilities.argmax(1)
    one_against_rest = [(labels == label, probabilities[:, label]) for label in classes]
    precisions = [sklearn_metrics.average_precision_score(*pair) for pair in one_against_rest]
    return {
        "balanced_accuracy": sklearn_metrics.recall_score(labels, predictions, labels=classes, average="macro"),
        "macro_f1": sklearn_metrics.f1_score(labels, predictions, labels=classes, average="macro"),
        "kappa": sklearn_metrics.cohen_kappa_score(labels, predictions),
        "auroc": float(np.mean([sklearn_metrics.roc_auc_score(*pair) for pair in one_against_rest])),
        "average_precision": float(np.mean(precisions)),
    }


@pytest.mark.parametrize(("num_classes", "decimals"), [(2, 12), (2, 1), (5, 12), (5, 1), (12, 2)])
def test_the_metrics_are_those_of_scikit_learn(num_classes: int, decimals: int) -> None:
    probabilities, labels = draw_predictions(150, num_classes, decimals=decimals)
    labels[labels == num_classes - 1] = 0 if num_classes > 2 else labels[labels == num_classes - 1]
    result = compute_weighted_metrics(probabilities, labels)
    for name, value in compute_expected(probabilities, labels).items():
        assert result[name] == pytest.approx(value), name
        low, high = result[f"{name}_ci95"]  # type: ignore[misc]
        assert low < value < high


@pytest.mark.parametrize("num_groups", [None, 15])
def test_the_intervals_are_those_of_a_bootstrap_written_out(num_groups: int | None) -> None:
    """Each resample repeats the images of its units, and scikit-learn computes its metrics."""
    probabilities, labels = draw_predictions(60, 3)
    groups = None if num_groups is None else np.arange(60) % num_groups
    unit_index = np.arange(60) if groups is None else groups
    num_units = int(unit_index.max()) + 1
    expected: dict[str, list[float]] = {}
    (weights,) = iter_weights(num_units, 500)
    for row in weights[:80]:
        positions = np.repeat(np.arange(60), row[unit_index])
        for name, value in compute_expected(probabilities[positions], labels[positions]).items():
            expected.setdefault(name, []).append(value)
    result = compute_weighted_metrics(probabilities, labels, groups)
    for name, values in expected.items():
        interval = compute_percentile_interval(np.array(values), num_units)
        assert interval is not None
        moved = np.clip(np.array(interval) - (np.mean(values) - float(result[name])), 0, 1)  # type: ignore[arg-type]
        assert result[f"{name}_ci95"] == pytest.approx(moved, abs=0.06), name


def test_with_many_classes_of_few_images_intervals_are_around_their_metrics() -> None:
    """Repeated images raise average precision and lower F1 in every resample."""
    probabilities, labels = draw_predictions(400, 80)
    result = compute_weighted_metrics(probabilities, labels)
    for name in ("macro_f1", "average_precision"):
        low, high = result[f"{name}_ci95"]  # type: ignore[misc]
        assert (low + high) / 2 == pytest.approx(result[name], abs=0.2 * (high - low)), name


def test_groups_widen_an_interval_of_images_that_resemble_each_other() -> None:
    probabilities, labels = draw_predictions(40, 3)
    copies, groups = np.repeat(np.arange(40), 5), np.repeat(np.arange(40), 5)
    ungrouped = compute_weighted_metrics(probabilities[copies], labels[copies])
    grouped = compute_weighted_metrics(probabilities[copies], labels[copies], groups)
    assert ungrouped["auroc"] == grouped["auroc"]
    width: Callable[[dict], float] = lambda result: result["auroc_ci95"][1] - result["auroc_ci95"][0]  # noqa: E731
    assert width(grouped) > 1.8 * width(ungrouped)


def test_what_is_not_defined_is_left_out() -> None:
    one_class = compute_weighted_metrics(np.array([[0.9, 0.1], [0.4, 0.6]]), np.array([0, 0]))
    assert "auroc" not in one_class
    assert one_class["balanced_accuracy"] == 0.5
    perfect = compute_weighted_metrics(np.eye(2)[[0, 1, 0, 1]], np.array([0, 1, 0, 1]))
    assert (perfect["auroc"], perfect["macro_f1"]) == (1.0, 1.0)
    assert not any(name.endswith("_ci95") for name in perfect)
    assert "kappa_ci95" not in compute_weighted_metrics(np.array([[0.9, 0.1]]), np.array([0]))


def test_grouped_accuracies_have_intervals_over_groups() -> None:
    probabilities, labels = draw_predictions(60, 3)
    logits, groups = torch.from_numpy(np.log(probabilities)), np.arange(60) // 10
    grouped = classification_metrics(logits, torch.from_numpy(labels), groups)
    plain = classification_metrics(logits, torch.from_numpy(labels))
    assert grouped["accuracy"] == plain["accuracy"]
    assert grouped["accuracy_ci95"] != plain["accuracy_ci95"]
    assert (grouped["groups"], "groups" in plain) == (6, False)
    for metrics in (grouped, plain):  # two names of one number
        assert metrics["macro_accuracy"] == metrics["balanced_accuracy"]
        assert metrics["macro_accuracy_ci95"] == metrics["balanced_accuracy_ci95"]
    alike = classification_metrics(torch.eye(2)[[0, 1, 0, 1]], torch.tensor([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
    assert alike["accuracy_ci95"][0] < 0.5  # two groups show little
    few = classification_metrics(logits, torch.from_numpy(labels), np.arange(60) // 30)
    assert few["accuracy_ci95"] == pytest.approx(wilson_interval(2 * few["accuracy"], 2))
    assert few["macro_accuracy_ci95"] == pytest.approx(wilson_interval(2 * few["macro_accuracy"], 2))
    assert "auroc_ci95" not in few


@pytest.mark.long
def test_ten_thousand_images_of_120_classes_take_seconds() -> None:
    probabilities, labels = draw_predictions(10_000, 120)
    start_time = time.process_time()
    compute_weighted_metrics(probabilities, labels)
    assert time.process_time() - start_time < 6  # 2 s of one core
