"""What a probe tries on the validation images, and which of it is chosen."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from thaw.features.scaling import LinearModel

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
