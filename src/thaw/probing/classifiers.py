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

from thaw.probing.trial import KNN_METHOD, FeatureSet, LinearModel, ProbeTrial, evaluate_linear_model

# The most first, as more neighbours are the smoother rule. Of EfficientNet-Lite0's features 20 were best, or 1 worse.
NEIGHBOR_COUNTS = (100, 50, 20, 10, 5, 3, 1)
# Inverse strengths, the strongest first. On standardised features 1280 wide the best were 1e-3 to 1e-2, and 1e-4 to
# 1e-3; an SVM with 1e-2 took 104 s instead of 18 for 1,800 images of 36 classes, and was worse.
LOGISTIC_C_VALUES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SVM_C_VALUES = (1e-6, 1e-5, 1e-4, 1e-3)
PATIENCE = 2  # settings in a row that are worse than the best before them; weaker ones take longest
MAX_ITERATIONS = 1000


def fit_nearest_centroid(train: FeatureSet, val: FeatureSet, num_classes: int) -> ProbeTrial:
    """The class whose mean is nearest. Logits are half the squared distances, with the sign changed, in units of the
    mean square of an image's distance from the mean of its class; their squares of the image are alike for all classes,
    and left out, so that they are linear."""
    start_time = time.perf_counter()
    centroids = np.stack([train.features[train.labels == label].mean(0) for label in range(num_classes)])
    mean_squared_distance = float(((train.features - centroids[train.labels]) ** 2).sum(1).mean()) or 1.0
    linear = LinearModel(centroids / mean_squared_distance, -0.5 * (centroids**2).sum(1) / mean_squared_distance)
    remark = "probabilities are not calibrated"
    return evaluate_linear_model("nearest centroid", {}, linear, val, time.perf_counter() - start_time, remark)


def fit_nearest_neighbors(train: FeatureSet, val: FeatureSet, num_classes: int) -> Iterator[ProbeTrial]:
    """The class that most of the k train images with the largest cosine have; of as many the one with the nearer
    images. Euclidean distance did worse (captcha characters, k = 20: 0.39 against 0.45 to 0.49)."""
    neighbor_counts = sorted({min(num_neighbors, len(train.labels)) for num_neighbors in NEIGHBOR_COUNTS}, reverse=True)
    start_time = time.perf_counter()
    neighbor_search = NearestNeighbors(n_neighbors=neighbor_counts[0], metric="cosine").fit(train.features)
    neighbor_labels = train.labels[neighbor_search.kneighbors(val.features, return_distance=False)]
    seconds = time.perf_counter() - start_time
    for num_neighbors in neighbor_counts:
        is_correct = count_votes(neighbor_labels[:, :num_neighbors], num_classes).argmax(1) == val.labels
        yield ProbeTrial(
            KNN_METHOD,
            {"k": num_neighbors},
            float(is_correct.mean()),
            float("nan"),
            seconds / len(neighbor_counts),
            None,
            "not a head",
        )


def count_votes(neighbor_labels: np.ndarray, num_classes: int) -> np.ndarray:
    """float64 [n, classes] of the neighbours' labels [n, k], nearest first: a vote each, and for a nearer one a
    trifle more, which decides between classes that have as many."""
    num_neighbors = neighbor_labels.shape[1]
    weights = np.broadcast_to(1.0 + 1e-9 * np.arange(num_neighbors, 0, -1) ** 2, neighbor_labels.shape)
    row_offsets = np.arange(len(neighbor_labels))[:, None] * num_classes
    vote_sums = np.bincount(
        (row_offsets + neighbor_labels).ravel(), weights.ravel(), minlength=len(neighbor_labels) * num_classes
    )
    return vote_sums.reshape(len(neighbor_labels), num_classes)


def fit_logistic_regressions(train: FeatureSet, val: FeatureSet) -> Iterator[ProbeTrial]:
    """By inverse strength of an L2 penalty, from the strongest until weaker ones only do worse."""

    def build_model(c_value: float) -> Any:
        return LogisticRegression(C=c_value, max_iter=MAX_ITERATIONS)

    return _fit_regularization_path("logistic regression", build_model, LOGISTIC_C_VALUES, train, val)


def fit_linear_svms(train: FeatureSet, val: FeatureSet) -> Iterator[ProbeTrial]:
    """Squared hinge, each class against the others, by inverse strength as `logistic_regressions`."""

    def build_model(c_value: float) -> Any:
        return LinearSVC(C=c_value, max_iter=MAX_ITERATIONS, random_state=0)

    return _fit_regularization_path(
        "linear SVM", build_model, SVM_C_VALUES, train, val, "probabilities are not calibrated"
    )


def _fit_regularization_path(
    method: str,
    build_model: Callable[[float], Any],
    c_values: tuple[float, ...],
    train: FeatureSet,
    val: FeatureSet,
    remark: str = "",
) -> Iterator[ProbeTrial]:
    best_accuracy, num_worse = 0.0, 0
    for c_value in c_values:
        start_time = time.perf_counter()
        linear, has_converged = _fit_linear(build_model(c_value), train)
        seconds = time.perf_counter() - start_time
        remarks = [
            *([remark] if remark else []),
            *([] if has_converged else [f"stopped after {MAX_ITERATIONS} iterations"]),
        ]
        trial = evaluate_linear_model(method, {"C": c_value}, linear, val, seconds, "; ".join(remarks))
        yield trial
        best_accuracy, num_worse = (
            max(best_accuracy, trial.accuracy),
            num_worse + 1 if trial.accuracy < best_accuracy else 0,
        )
        if num_worse == PATIENCE:
            return


def _fit_linear(model: Any, train: FeatureSet) -> tuple[LinearModel, bool]:
    """With whether the solver has converged. Of two classes scikit-learn has one row, of which each class gets half."""
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(train.features, train.labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    return LinearModel(weight, bias), not any(
        issubclass(caught_warning.category, ConvergenceWarning) for caught_warning in caught_warnings
    )
