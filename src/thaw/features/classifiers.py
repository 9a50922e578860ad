"""Classifiers of features that need no training loop: nearest centroid, k-NN, logistic regression, linear SVM."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import LinearSVC

from thaw.features.scaling import Linear
from thaw.features.trial import NEIGHBOURS, Trial, Vectors, linear_trial

# The most first, as more neighbours are the smoother rule. Of EfficientNet-Lite0's features 20 were best, or 1 worse.
COUNTS = (100, 50, 20, 10, 5, 3, 1)
# Inverse strengths, the strongest first. On standardised features 1280 wide the best were 1e-3 to 1e-2, and 1e-4 to
# 1e-3; an SVM with 1e-2 took 104 s instead of 18 for 1,800 images of 36 classes, and was worse.
LOGISTIC_STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SVM_STRENGTHS = (1e-6, 1e-5, 1e-4, 1e-3)
PATIENCE = 2  # settings in a row that are worse than the best before them; weaker ones take longest
ITERATIONS = 1000


def nearest_centroid(train: Vectors, val: Vectors, classes: int) -> Trial:
    """The class whose mean is nearest. Logits are half the squared distances, with the sign changed, in units of the
    mean square of an image's distance from the mean of its class; their squares of the image are alike for all classes,
    and left out, so that they are linear."""
    started = time.perf_counter()
    means = np.stack([train.features[train.labels == label].mean(0) for label in range(classes)])
    unit = float(((train.features - means[train.labels]) ** 2).sum(1).mean()) or 1.0
    linear = Linear(means / unit, -0.5 * (means**2).sum(1) / unit)
    remark = "probabilities are not calibrated"
    return linear_trial("nearest centroid", {}, linear, val, time.perf_counter() - started, remark)


def neighbours(train: Vectors, val: Vectors, classes: int) -> Iterator[Trial]:
    """The class that most of the k train images with the largest cosine have; of as many the one with the nearer
    images. Euclidean distance did worse (captcha characters, k = 20: 0.39 against 0.45 to 0.49)."""
    counts = sorted({min(count, len(train.labels)) for count in COUNTS}, reverse=True)
    started = time.perf_counter()
    search = NearestNeighbors(n_neighbors=counts[0], metric="cosine").fit(train.features)
    labels = train.labels[search.kneighbors(val.features, return_distance=False)]
    seconds = time.perf_counter() - started
    for count in counts:
        right = votes(labels[:, :count], classes).argmax(1) == val.labels
        yield Trial(
            NEIGHBOURS, {"k": count}, float(right.mean()), float("nan"), seconds / len(counts), None, "not a head"
        )


def votes(labels: np.ndarray, classes: int) -> np.ndarray:
    """float64 [n, classes] of the neighbours' labels [n, k], nearest first: a vote each, and for a nearer one a
    trifle more, which decides between classes that have as many."""
    count = labels.shape[1]
    weights = np.broadcast_to(1.0 + 1e-9 * np.arange(count, 0, -1) ** 2, labels.shape)
    rows = np.arange(len(labels))[:, None] * classes
    summed = np.bincount((rows + labels).ravel(), weights.ravel(), minlength=len(labels) * classes)
    return summed.reshape(len(labels), classes)


def logistic_regressions(train: Vectors, val: Vectors) -> Iterator[Trial]:
    """By inverse strength of an L2 penalty, from the strongest until weaker ones only do worse."""

    def model(strength: float) -> Any:
        return LogisticRegression(C=strength, max_iter=ITERATIONS)

    return _path("logistic regression", model, LOGISTIC_STRENGTHS, train, val)


def linear_svms(train: Vectors, val: Vectors) -> Iterator[Trial]:
    """Squared hinge, each class against the others, by inverse strength as `logistic_regressions`."""

    def model(strength: float) -> Any:
        return LinearSVC(C=strength, max_iter=ITERATIONS, random_state=0)

    return _path("linear SVM", model, SVM_STRENGTHS, train, val, "probabilities are not calibrated")


def _path(
    method: str,
    model_of: Callable[[float], Any],
    strengths: tuple[float, ...],
    train: Vectors,
    val: Vectors,
    remark: str = "",
) -> Iterator[Trial]:
    best, worse = 0.0, 0
    for strength in strengths:
        started = time.perf_counter()
        linear, converged = _fitted(model_of(strength), train)
        seconds = time.perf_counter() - started
        remarks = [*([remark] if remark else []), *([] if converged else [f"stopped after {ITERATIONS} iterations"])]
        trial = linear_trial(method, {"C": strength}, linear, val, seconds, "; ".join(remarks))
        yield trial
        best, worse = max(best, trial.accuracy), worse + 1 if trial.accuracy < best else 0
        if worse == PATIENCE:
            return


def _fitted(model: Any, train: Vectors) -> tuple[Linear, bool]:
    """With whether the solver has converged. Of two classes scikit-learn has one row, of which each class gets half."""
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(train.features, train.labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return Linear(weight, bias), not any(issubclass(one.category, ConvergenceWarning) for one in said)
