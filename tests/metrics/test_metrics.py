"""Metrics match those of scikit-learn and SciPy."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from thaw.metrics.classification import classification_metrics, confusion_matrix
from thaw.metrics.per_class import wilson_interval


def sample_logits(classes: int, absent: tuple[int, ...] = (), count: int = 500) -> tuple[Tensor, Tensor]:
    """Sample logits that are correct more often than by chance, and labels in which some classes do not occur."""
    generator = torch.Generator().manual_seed(classes)
    present = torch.tensor([label for label in range(classes) if label not in absent])
    labels = present[torch.randint(len(present), (count,), generator=generator)]
    logits = torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), labels] += 1.0
    return logits, labels


CASES = [(2, ()), (3, ()), (5, ()), (12, ()), (12, (0, 7, 11))]


@pytest.mark.parametrize(("classes", "absent"), CASES)
def test_accuracies_match_scikit_learn(classes: int, absent: tuple[int, ...]) -> None:
    logits, labels = sample_logits(classes, absent)
    result, predictions = classification_metrics(logits, labels), logits.argmax(1)
    recalls = sklearn_metrics.recall_score(labels, predictions, labels=labels.unique(), average="macro")
    assert result["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, predictions))
    assert result["macro_accuracy"] == pytest.approx(recalls)
    assert result["count"] == len(labels)


@pytest.mark.parametrize(("classes", "absent"), CASES)
def test_macro_f1_matches_scikit_learn_over_the_classes_that_occur(classes: int, absent: tuple[int, ...]) -> None:
    logits, labels = sample_logits(classes, absent)
    expected = sklearn_metrics.f1_score(labels, logits.argmax(1), labels=labels.unique(), average="macro")
    assert classification_metrics(logits, labels)["macro_f1"] == pytest.approx(expected)


def test_a_class_that_occurs_and_is_never_predicted_counts_as_zero() -> None:
    labels = torch.tensor([0, 0, 1, 2])
    logits = torch.eye(3)[torch.tensor([0, 0, 0, 2])]
    result = classification_metrics(logits, labels)
    assert result["macro_accuracy"] == pytest.approx((1 + 0 + 1) / 3)
    assert result["macro_f1"] == pytest.approx((0.8 + 0 + 1) / 3)


@pytest.mark.parametrize(("classes", "absent"), CASES)
def test_loss_matches_scikit_learn(classes: int, absent: tuple[int, ...]) -> None:
    logits, labels = sample_logits(classes, absent)
    expected = sklearn_metrics.log_loss(labels, logits.double().softmax(1), labels=np.arange(classes))
    assert classification_metrics(logits, labels)["loss"] == pytest.approx(expected)


@pytest.mark.parametrize(("classes", "absent"), [case for case in CASES if case[0] > 5])
def test_top5_accuracy_matches_scikit_learn(classes: int, absent: tuple[int, ...]) -> None:
    logits, labels = sample_logits(classes, absent)
    expected = sklearn_metrics.top_k_accuracy_score(labels, logits, k=5, labels=np.arange(classes))
    assert classification_metrics(logits, labels)["top5_accuracy"] == pytest.approx(expected)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_top5_accuracy_is_1_for_up_to_five_classes(classes: int) -> None:
    assert classification_metrics(*sample_logits(classes))["top5_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("successes", "count"), [(0, 1), (1, 1), (0, 30), (30, 30), (1, 40), (137, 153), (9999, 10000)]
)
def test_the_wilson_interval_matches_scipy(successes: int, count: int) -> None:
    expected = binomtest(successes, count).proportion_ci(confidence_level=0.95, method="wilson")
    low, high = wilson_interval(successes, count)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0.0 <= low < high <= 1.0


def test_the_accuracy_interval_is_that_of_its_count() -> None:
    logits, labels = sample_logits(4)
    num_correct = int((logits.argmax(1) == labels).sum())
    assert classification_metrics(logits, labels)["accuracy_ci95"] == list(wilson_interval(num_correct, len(labels)))


@pytest.mark.parametrize(("classes", "absent"), CASES)
def test_the_confusion_matrix_matches_scikit_learn(classes: int, absent: tuple[int, ...]) -> None:
    logits, labels = sample_logits(classes, absent)
    expected = sklearn_metrics.confusion_matrix(labels, logits.argmax(1), labels=np.arange(classes))
    assert confusion_matrix(logits.argmax(1), labels, classes).tolist() == expected.tolist()


def test_the_confusion_matrix_has_labels_as_rows() -> None:
    matrix = confusion_matrix(torch.tensor([2, 2]), torch.tensor([0, 0]), num_classes=3)
    assert matrix[0, 2] == 2
    assert matrix.sum() == 2
