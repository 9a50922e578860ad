"""Statistics over seeds and images: mean with interval, paired test, Holm's correction.

There are two sampling units. *Seeds*: another seed gives other initial weights, batches, augmentation and validation
images; the test images stay. *Images*: other test images of the same kind; the trained networks stay. No number here
covers both, or other data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

CONFIDENCE_LEVEL = 0.95
MIN_T_TEST_SEEDS = 3  # with two seeds an interval of the difference is 18 times as wide as their standard deviation
SamplingUnit = Literal["seeds", "images"]
PairedPredictions = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Paths [n], and whether each image is predicted correctly by the configuration and by the reference, bool [n]."""


@dataclass(frozen=True)
class Estimate:
    """The mean of one number per seed with its 95 % interval `low` to `high` over `sampling_unit`. `std` divides by
    n - 1 and is nan for one seed."""

    mean: float
    std: float
    low: float
    high: float
    sampling_unit: SamplingUnit


def estimate_mean(accuracies: Sequence[float], single_run_interval: tuple[float, float]) -> Estimate:
    """Return the mean of `accuracies`, in 0..1, one per seed.

    Its 95 % interval is Student's (1908) over seeds, clipped to 0..1. With one seed, or if all seeds agree, which would
    make the interval a point, it is `single_run_interval`: Wilson's (1927) for one run, over test images.
    """
    values = np.asarray(accuracies, dtype=float)
    mean, count = float(values.mean()), len(values)
    std = float(values.std(ddof=1)) if count > 1 else float("nan")
    if count < 2 or np.ptp(values) == 0:
        return Estimate(mean, std, *single_run_interval, "images")
    low, high = stats.t.interval(CONFIDENCE_LEVEL, count - 1, loc=mean, scale=std / np.sqrt(count))
    return Estimate(mean, std, max(0.0, float(low)), min(1.0, float(high)), "seeds")


@dataclass(frozen=True)
class PairedTest:
    """A configuration minus the reference, on the `num_seeds` seeds that they share. `low` to `high` is the 95 %
    interval of the difference. `p_value` is two-sided; `adjusted_p_value` is corrected by Holm's method."""

    difference: float
    low: float
    high: float
    p_value: float
    sampling_unit: SamplingUnit
    num_seeds: int
    adjusted_p_value: float = float("nan")


def compute_paired_test(
    accuracies: Sequence[float], reference_accuracies: Sequence[float], predictions: Sequence[PairedPredictions]
) -> PairedTest:
    """Test whether a configuration and the reference are equally accurate.

    `accuracies` and `reference_accuracies` hold one value per shared seed, in the same order; `predictions` are those
    of the test images with these seeds. From three seeds on this is Student's paired t-test over seeds. With fewer, or
    if all differences are equal and the t-test would divide by zero, it is the exact sign test over images, see
    `compute_sign_test_p_value`.
    """
    differences = np.asarray(accuracies, dtype=float) - np.asarray(reference_accuracies, dtype=float)
    mean, count = float(differences.mean()), len(differences)
    if count < MIN_T_TEST_SEEDS or np.ptp(differences) < 1e-12:
        low, high = _estimate_difference_over_images(predictions)
        return PairedTest(mean, low, high, compute_sign_test_p_value(predictions), "images", count)
    std_error = differences.std(ddof=1) / np.sqrt(count)
    low, high = map(float, stats.t.interval(CONFIDENCE_LEVEL, count - 1, loc=mean, scale=std_error))
    return PairedTest(mean, low, high, float(stats.ttest_rel(accuracies, reference_accuracies).pvalue), "seeds", count)


def _estimate_difference_over_images(predictions: Sequence[PairedPredictions]) -> tuple[float, float]:
    """Return the 95 % interval of the difference of accuracies over images: Agresti and Min's (2005), which adds half
    an image to each case, so that it is no point if all predictions agree. An image counts once, with its mean over
    seeds."""
    gains, counts = _sum_gains(predictions)
    mean_gains, num_images = gains / counts, len(gains) + 2
    mean = mean_gains.sum() / num_images
    std_error = np.sqrt(((mean_gains**2).sum() + 1) / num_images - mean**2) / np.sqrt(num_images)
    margin = float(stats.norm.ppf((1 + CONFIDENCE_LEVEL) / 2) * std_error)
    return max(-1.0, float(mean) - margin), min(1.0, float(mean) + margin)


def _sum_gains(predictions: Sequence[PairedPredictions]) -> tuple[np.ndarray, np.ndarray]:
    """Return for each image in how many more seeds the configuration is right than the reference, and in how many seeds
    it is a test image."""
    paths = np.concatenate([image_paths for image_paths, _, _ in predictions])
    gains = np.concatenate(
        [correct.astype(np.int64) - reference_correct.astype(np.int64) for _, correct, reference_correct in predictions]
    )
    _, image_index = np.unique(paths, return_inverse=True)
    return np.bincount(image_index, weights=gains), np.bincount(image_index)


def compute_sign_test_p_value(predictions: Sequence[PairedPredictions]) -> float:
    """Return the two-sided p value of the exact sign test: an image is as likely to be predicted better by the
    configuration as by the reference.

    With one seed this is McNemar's test (1947) in its exact form. With several seeds an image counts once, for the side
    that predicts it correctly in more of them: if it counted once per seed, like different images, chance would look
    like evidence.
    """
    gain_per_image, _ = _sum_gains(predictions)
    num_better, num_worse = int((gain_per_image > 0).sum()), int((gain_per_image < 0).sum())
    return float(stats.binomtest(num_better, num_better + num_worse).pvalue) if num_better + num_worse else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Return `p_values`, in their order, adjusted by Holm's method (1979): the chance of at least one false alarm among
    all tests stays below the level that they are read at, even if the tests depend on each other."""
    values, count = np.asarray(p_values, dtype=float), len(p_values)
    order = np.argsort(values, kind="stable")
    cumulative_max = np.maximum.accumulate(values[order] * (count - np.arange(count)))
    adjusted_p_values = np.empty(count)
    adjusted_p_values[order] = np.minimum(1.0, cumulative_max)
    return adjusted_p_values.tolist()
