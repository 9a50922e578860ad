"""What a probe tries on the validation images, and which of it is chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

KNN_METHOD, LINEAR_HEAD_METHOD = "k-NN", "linear head"


@dataclass(frozen=True)
class FeatureSet:
    """The features of a split, float32 [n, rank], and their labels, int64 [n]."""

    features: np.ndarray
    labels: np.ndarray


@dataclass(frozen=True)
class ProbeTrial:
    """A classifier with one setting, and what it makes of the validation images. `loss` is the mean cross-entropy of
    `linear`, nan without one: then the classifier cannot become a head. `remark`: what a reader should know."""

    method: str
    setting: Mapping[str, float]
    accuracy: float
    loss: float
    seconds: float
    linear: LinearModel | None
    remark: str = ""

    def format_setting(self) -> str:
        """The setting as text: learning rate 0.01, seed 2."""
        return ", ".join(f"{name} {value:g}" for name, value in self.setting.items())


def select_most_accurate(trials: Iterable[ProbeTrial]) -> ProbeTrial:
    """The highest validation accuracy; of equal ones the lowest loss, and of those the first, which every method tries
    with the strongest regularisation."""
    return max(trials, key=_get_sort_key)


def select_best(trials: Iterable[ProbeTrial]) -> ProbeTrial:
    """The best that can become a head."""
    return select_most_accurate(trial for trial in trials if trial.linear is not None)


def _get_sort_key(trial: ProbeTrial) -> tuple[float, float]:
    return trial.accuracy, -trial.loss if math.isfinite(trial.loss) else -math.inf


def evaluate_linear_model(
    method: str, setting: Mapping[str, float], linear: LinearModel, val: FeatureSet, seconds: float, remark: str = ""
) -> ProbeTrial:
    """The trial of `linear` on `val`."""
    logits = linear.compute_logits(val.features)
    accuracy = float((logits.argmax(1) == val.labels).mean())
    return ProbeTrial(method, setting, accuracy, compute_cross_entropy(logits, val.labels), seconds, linear, remark)


def compute_cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """The mean over float [n, classes] and int64 [n]."""
    logits = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return float((np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]).mean())


@dataclass(frozen=True)
class LinearModel:
    """logits = features @ weight.T + bias, of `weight` [classes, width] and `bias` [classes]."""

    weight: np.ndarray
    bias: np.ndarray

    def compute_logits(self, features: np.ndarray) -> np.ndarray:
        """[n, classes] of [n, width]."""
        return np.asarray(features @ self.weight.T + self.bias)


@dataclass(frozen=True)
class Scaling:
    """`mean` and `deviation` are float64 [width]. `axes` is float32 [width, rank] with orthonormal columns that span
    the standardised train features, or None where these are not fewer than the width.

    What is rotated with its data by every method here, the inner products being all that it sees of them, gives the
    same in `rank` numbers an image as in `width`: nearest neighbours and centroids, linear models with an L2 penalty,
    and gradient descent with momentum and weight decay from a start within the span. Of another image what lies outside
    the span is dropped: it is orthogonal to every weight, and alike in the distances to all train images.
    """

    mean: np.ndarray
    std: np.ndarray
    axes: np.ndarray | None

    def transform(self, features: np.ndarray) -> np.ndarray:
        """float32 [n, rank] of [n, width]."""
        standardized: np.ndarray = ((features - self.mean) / self.std).astype(np.float32)
        return standardized if self.axes is None else np.asarray(standardized @ self.axes)

    def fold_into(self, linear: LinearModel) -> LinearModel:
        """The same logits from features as they come: `linear` takes what `applied` gives."""
        weight = linear.weight.astype(np.float64)
        weight = (weight if self.axes is None else weight @ self.axes.T) / self.std
        return LinearModel(weight, linear.bias - weight @ self.mean)


def fit_scaling(train: np.ndarray, with_axes: bool = True) -> Scaling:
    """Of float [n, width]; not `turned`: without axes in any case. A feature that is the same in all train images is
    centred alone."""
    mean, std = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
    scaling = Scaling(mean, np.where(std > 0, std, 1.0), None)
    if len(train) >= train.shape[1] or not with_axes:
        return scaling
    axes, _ = np.linalg.qr(scaling.transform(train).T)  # 4 ms for 195 x 1280, a singular value decomposition 40
    return Scaling(scaling.mean, scaling.std, axes)
