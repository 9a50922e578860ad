"""Our numbers are held against scikit-learn's and SciPy's."""

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics
from torch import Tensor

from thaw.metrics.classification import classification_metrics, confusion_matrix, wilson_interval


def random_answers(classes: int, absent: tuple[int, ...] = (), count: int = 500) -> tuple[Tensor, Tensor]:
    """Logits that are right more often than chance, and labels in which some classes do not occur."""
    generator = torch.Generator().manual_seed(classes)
    present = torch.tensor([one for one in range(classes) if one not in absent])
    labels = present[torch.randint(len(present), (count,), generator=generator)]
    logits = torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), labels] += 1.0
    return logits, labels


CASES = [(2, ()), (3, ()), (5, ()), (12, ()), (12, (0, 7, 11))]


@pytest.mark.parametrize(("classes", "absent"), CASES)
def test_accuracies_are_those_of_scikit_learn(classes: int, absent: tuple[int, ...]) -> None:
    logits, labels = random_answers(classes, absent)
    ours, predicted = classification_metrics(logits, labels), logits.argmax(1)
    recalls = sklearn_metrics.recall_score(labels, predicted, labels=labels.unique(), average="macro")
    assert ours["accuracy"] == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted))
    assert ours["macro_accuracy"] == pytest.approx(recalls)
    assert ours["count"] == len(labels)


@pytest.mark.parametrize(("classes", "absent"), CASES)
def test_macro_f1_is_that_of_scikit_learn_over_the_classes_that_occur(classes: int, absent: tuple[int, ...]) -> None:
    logits, labels = random_answers(classes, absent)
    theirs = sklearn_metrics.f1_score(labels, logits.argmax(1), labels=labels.unique(), average="macro")
    assert classification_metrics(logits, labels)["macro_f1"] == pytest.approx(theirs)


def test_a_class_that_occurs_and_is_never_predicted_counts_as_zero() -> None:
    labels = torch.tensor([0, 0, 1, 2])
    logits = torch.eye(3)[torch.tensor([0, 0, 0, 2])]
    numbers = classification_metrics(logits, labels)
    assert numbers["macro_accuracy"] == pytest.approx((1 + 0 + 1) / 3)
    assert numbers["macro_f1"] == pytest.approx((0.8 + 0 + 1) / 3)


@pytest.mark.parametrize(("classes", "absent"), CASES)
def test_loss_is_the_log_loss_of_scikit_learn(classes: int, absent: tuple[int, ...]) -> None:
    logits, labels = random_answers(classes, absent)
    theirs = sklearn_metrics.log_loss(labels, logits.double().softmax(1), labels=np.arange(classes))
    assert classification_metrics(logits, labels)["loss"] == pytest.approx(theirs)


@pytest.mark.parametrize(("classes", "absent"), [case for case in CASES if case[0] > 5])
def test_top5_accuracy_is_that_of_scikit_learn(classes: int, absent: tuple[int, ...]) -> None:
    logits, labels = random_answers(classes, absent)
    theirs = sklearn_metrics.top_k_accuracy_score(labels, logits, k=5, labels=np.arange(classes))
    assert classification_metrics(logits, labels)["top5_accuracy"] == pytest.approx(theirs)


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_up_to_five_classes_are_all_among_the_best_five(classes: int) -> None:
    assert classification_metrics(*random_answers(classes))["top5_accuracy"] == 1.0


@pytest.mark.parametrize(
    ("successes", "count"), [(0, 1), (1, 1), (0, 30), (30, 30), (1, 40), (137, 153), (9999, 10000)]
)
def test_the_interval_is_the_wilson_interval_of_scipy(successes: int, count: int) -> None:
    theirs = binomtest(successes, count).proportion_ci(confidence_level=0.95, method="wilson")
    low, high = wilson_interval(successes, count)
    assert (low, high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0.0 <= low < high <= 1.0


def test_the_interval_beside_the_accuracy_is_its_own() -> None:
    logits, labels = random_answers(4)
    right = int((logits.argmax(1) == labels).sum())
    assert classification_metrics(logits, labels)["accuracy_ci95"] == list(wilson_interval(right, len(labels)))


@pytest.mark.parametrize(("classes", "absent"), CASES)
def test_the_confusion_matrix_is_that_of_scikit_learn(classes: int, absent: tuple[int, ...]) -> None:
    logits, labels = random_answers(classes, absent)
    theirs = sklearn_metrics.confusion_matrix(labels, logits.argmax(1), labels=np.arange(classes))
    assert confusion_matrix(logits.argmax(1), labels, classes).tolist() == theirs.tolist()


def test_a_row_of_the_confusion_matrix_is_a_label_and_a_column_a_prediction() -> None:
    matrix = confusion_matrix(torch.tensor([2, 2]), torch.tensor([0, 0]), num_classes=3)
    assert matrix[0, 2] == 2
    assert matrix.sum() == 2
