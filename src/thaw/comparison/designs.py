"""How the runs of a comparison share test images: the design, which decides the statistics that are valid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np

Design = Literal["seeds", "resamples", "folds"]
"""`seeds`: all runs have the same test images. `folds`: each image is tested once, in one of the folds. `resamples`:
the test images of different splits overlap."""


@dataclass(frozen=True)
class ScoredRun:
    """The test images of a run and which of them it predicts correctly.

    Attributes:
        seed: of the training.
        split: identity of the test images, the same for runs with the same test images.
        num_train: number of train images.
        is_fold: whether the test images are a fold of a cross-validation.
        images: path of each test image, text [n].
        groups: group of each test image, text [n]; its path if the data set has no groups.
        correct: which predictions are correct, bool [n].
    """

    seed: int
    split: str
    num_train: int
    is_fold: bool
    images: np.ndarray
    groups: np.ndarray
    correct: np.ndarray


@dataclass(frozen=True)
class PairedRun:
    """Two runs with the same seed and the same test images: of a configuration and of the reference. The attributes are
    those of `ScoredRun`."""

    seed: int
    split: str
    num_train: int
    is_fold: bool
    images: np.ndarray
    groups: np.ndarray
    correct: np.ndarray
    reference_correct: np.ndarray

    @property
    def difference(self) -> float:
        """The accuracy of the configuration minus that of the reference."""
        return float(self.correct.mean() - self.reference_correct.mean())


def detect_design(runs: Sequence[ScoredRun | PairedRun]) -> Design:
    """Return the design that the test images of `runs` have. Folds may be incomplete, but do not overlap: folds of
    several partitions are resampled splits."""
    images_by_split = {run.split: run.images for run in runs}
    if len(images_by_split) == 1:
        return "seeds"
    if not all(run.is_fold for run in runs):
        return "resamples"
    pairs = combinations(images_by_split.values(), 2)
    return "resamples" if any(np.intersect1d(*pair).size for pair in pairs) else "folds"


def average_by_split(runs: Sequence[ScoredRun | PairedRun], values: Sequence[float]) -> np.ndarray:
    """Return the mean of `values`, one for each run, over the seeds of each split, float64 [splits]."""
    values_by_split: dict[str, list[float]] = {}
    for run, value in zip(runs, values, strict=True):
        values_by_split.setdefault(run.split, []).append(value)
    return np.array([np.mean(split_values) for split_values in values_by_split.values()])


def compute_test_to_train_ratio(runs: Sequence[ScoredRun | PairedRun]) -> float:
    """Return the number of test images divided by that of train images, the mean over runs."""
    return float(np.mean([len(run.images) / max(1, run.num_train) for run in runs]))
