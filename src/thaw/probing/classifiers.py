"""Fit classifiers that need no training loop: nearest centroid, k-NN, logistic regression, linear SVM."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors
from sklearn.svm import LinearSVC

from thaw.probing.trial import (
    KNN_METHOD,
    LOGISTIC_METHOD,
    FeatureSet,
    LinearModel,
    ProbeData,
    ProbeTrial,
    evaluate_linear_model,
)

# The largest first, as more neighbors are the smoother rule. On features of EfficientNet-Lite0, 20 or 1 were best.
NEIGHBOR_COUNTS = (100, 50, 20, 10, 5, 3, 1)
# Inverse regularization strengths, the strongest first. On 1280 standardized features 1e-3 to 1e-2 were best for
# logistic regression and 1e-4 to 1e-3 for an SVM, which took 104 s instead of 18 with 1e-2 on 1,800 images of 36
# classes and was worse.
LOGISTIC_C_VALUES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0)
SVM_C_VALUES = (1e-6, 1e-5, 1e-4, 1e-3)
MAX_WORSE_SETTINGS = 2  # settings in a row that are worse than the best so far; weaker regularization takes longest
MAX_ITERATIONS = 1000
NO_PROBABILITIES_REMARK = "no probabilities"


def fit_nearest_centroid(data: ProbeData) -> ProbeTrial:
    """Fit the rule that chooses the class with the nearest mean.

    Its logits are the negative half squared distances, in units of the mean squared distance of an image from the mean
    of its class. The squared norm of the image is the same for all classes and left out, so that they are linear.
    """
    start_time, train = time.perf_counter(), data.train
    centroids = np.stack([train.features[train.labels == label].mean(0) for label in range(data.num_classes)])
    mean_squared_distance = float(((train.features - centroids[train.labels]) ** 2).sum(1).mean()) or 1.0
    linear = LinearModel(centroids / mean_squared_distance, -0.5 * (centroids**2).sum(1) / mean_squared_distance)
    seconds = time.perf_counter() - start_time
    return evaluate_linear_model("nearest centroid", {}, linear, data.val, seconds, NO_PROBABILITIES_REMARK)


def fit_nearest_neighbors(data: ProbeData) -> Iterator[ProbeTrial]:
    """Yield a trial for each k: the class of most of the k train images with the largest cosine similarity.

    The nearer images decide between classes with equal numbers. Euclidean distance was worse (captcha characters,
    k = 20: accuracy 0.39 instead of 0.45 to 0.49).
    """
    max_neighbors = len(data.train.labels)
    neighbor_counts = sorted({min(num_neighbors, max_neighbors) for num_neighbors in NEIGHBOR_COUNTS}, reverse=True)
    start_time = time.perf_counter()
    neighbor_search = NearestNeighbors(n_neighbors=neighbor_counts[0], metric="cosine").fit(data.train.features)
    neighbor_labels = data.train.labels[neighbor_search.kneighbors(data.val.features, return_distance=False)]
    seconds = (time.perf_counter() - start_time) / len(neighbor_counts)
    for num_neighbors in neighbor_counts:
        predictions = count_votes(neighbor_labels[:, :num_neighbors], data.num_classes).argmax(1)
        accuracy = float((predictions == data.val.labels).mean())
        yield ProbeTrial(
            KNN_METHOD, {"k": num_neighbors}, accuracy, float("nan"), seconds, None, NO_PROBABILITIES_REMARK
        )


def count_votes(neighbor_labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the votes, float64 [n, classes], of neighbors with the labels [n, k], nearest first.

    Each has one vote, and a nearer one slightly more, which decides between classes with equal numbers.
    """
    num_neighbors = neighbor_labels.shape[1]
    weights = np.broadcast_to(1.0 + 1e-9 * np.arange(num_neighbors, 0, -1) ** 2, neighbor_labels.shape)
    row_offsets = np.arange(len(neighbor_labels))[:, None] * num_classes
    vote_sums = np.bincount(
        (row_offsets + neighbor_labels).ravel(), weights.ravel(), minlength=len(neighbor_labels) * num_classes
    )
    return vote_sums.reshape(len(neighbor_labels), num_classes)


def fit_logistic_regressions(data: ProbeData) -> Iterator[ProbeTrial]:
    """Yield a trial for each L2 penalty, from the strongest until weaker ones only get worse."""

    def build_model(c_value: float) -> Any:
        return LogisticRegression(C=c_value, max_iter=MAX_ITERATIONS)

    return _fit_regularization_path(LOGISTIC_METHOD, build_model, LOGISTIC_C_VALUES, data)


def fit_linear_svms(data: ProbeData) -> Iterator[ProbeTrial]:
    """Yield a trial for each L2 penalty, as `fit_logistic_regressions` does: squared hinge loss, one class against the
    rest."""

    def build_model(c_value: float) -> Any:
        return LinearSVC(C=c_value, max_iter=MAX_ITERATIONS, random_state=0)

    return _fit_regularization_path("linear SVM", build_model, SVM_C_VALUES, data, NO_PROBABILITIES_REMARK)


def _fit_regularization_path(
    method: str,
    build_model: Callable[[float], Any],
    c_values: tuple[float, ...],
    data: ProbeData,
    remark: str = "",
) -> Iterator[ProbeTrial]:
    best_score, num_worse = -math.inf, 0
    for c_value in c_values:
        start_time = time.perf_counter()
        linear, has_converged = _fit_linear(build_model(c_value), data.train)
        seconds = time.perf_counter() - start_time
        remarks = [remark, "" if has_converged else f"stopped after {MAX_ITERATIONS} iterations"]
        trial = evaluate_linear_model(
            method, {"C": c_value}, linear, data.val, seconds, "; ".join(filter(None, remarks))
        )
        yield trial
        score = -trial.loss if trial.can_be_chosen else trial.accuracy
        num_worse = num_worse + 1 if score < best_score else 0
        best_score = max(best_score, score)
        if num_worse == MAX_WORSE_SETTINGS:
            return


def _fit_linear(model: Any, train: FeatureSet) -> tuple[LinearModel, bool]:
    """Return the linear model and whether the solver converged.

    For two classes scikit-learn has one row of weights, half of which each class gets.
    """
    with warnings.catch_warnings(record=True) as caught_warnings:
        warnings.simplefilter("always", ConvergenceWarning)
        model.fit(train.features, train.labels)
    weight, bias = model.coef_, model.intercept_
    if len(weight) == 1:
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    has_converged = not any(issubclass(warning.category, ConvergenceWarning) for warning in caught_warnings)
    return LinearModel(weight, bias), has_converged
