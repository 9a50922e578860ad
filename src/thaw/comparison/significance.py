"""Numbers over seeds -> mean, spread, interval; two configurations -> a paired test; many tests -> Holm's correction.

Two kinds of chance are told apart. Over *seeds*: another seed gives other initial weights, batches, augmentation and
validation images; the test images stay. Over *images*: other test images of the same kind; the trained networks stay.
Nothing here speaks of both at once, nor of other data sets.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import stats

CONFIDENCE_LEVEL = 0.95
MIN_T_TEST_SEEDS = 3  # of a t-test: with two, an interval of the difference is 18 times as wide as their spread
SamplingUnit = Literal["seeds", "images"]
PairedPredictions = tuple[
    np.ndarray, np.ndarray, np.ndarray
]  # paths [n], and which of them are right under one and the other


@dataclass(frozen=True)
class Estimate:
    """Of one number a seed. `deviation` divides by n - 1 and is nan for one seed."""

    mean: float
    std: float
    low: float
    high: float
    sampling_unit: SamplingUnit


def estimate_mean(accuracies: Sequence[float], single_run_interval: tuple[float, float]) -> Estimate:
    """`accuracies` lie in 0..1, one a seed. The 95 % interval of their mean is Student's (1908), over seeds, cut off at
    0 and 1. Of one seed, and of seeds that all agree, whose spread would make it a point, it is `of_one`: Wilson's
    (1927) of one run, over test images."""
    values = np.asarray(accuracies, dtype=float)
    mean, count = float(values.mean()), len(values)
    std = float(values.std(ddof=1)) if count > 1 else float("nan")
    if count < 2 or np.ptp(values) == 0:
        return Estimate(mean, std, *single_run_interval, "images")
    low, high = stats.t.interval(CONFIDENCE_LEVEL, count - 1, loc=mean, scale=std / np.sqrt(count))
    return Estimate(mean, std, max(0.0, float(low)), min(1.0, float(high)), "seeds")


@dataclass(frozen=True)
class PairedTest:
    """One configuration less another, on their `seeds` shared seeds. `p` is two-sided; `adjusted` is Holm's."""

    difference: float
    p_value: float
    sampling_unit: SamplingUnit
    num_seeds: int
    adjusted_p_value: float = float("nan")


def compute_paired_test(
    accuracies: Sequence[float], reference_accuracies: Sequence[float], predictions: Sequence[PairedPredictions]
) -> PairedTest:
    """Tests whether two configurations are equally accurate. `ours` and `theirs` are accuracies, one a shared seed in
    the same order; `pairs` are the test images of these seeds.

    From three seeds on, Student's paired t-test over them. With fewer, or where all differences are the same and leave
    that test nothing to divide by, the exact sign test over images (see `over_images`).
    """
    differences = np.asarray(accuracies, dtype=float) - np.asarray(reference_accuracies, dtype=float)
    mean, count = float(differences.mean()), len(differences)
    if count < MIN_T_TEST_SEEDS or np.ptp(differences) < 1e-12:
        return PairedTest(mean, compute_sign_test_p_value(predictions), "images", count)
    return PairedTest(mean, float(stats.ttest_rel(accuracies, reference_accuracies).pvalue), "seeds", count)


def compute_sign_test_p_value(predictions: Sequence[PairedPredictions]) -> float:
    """Two-sided p of the exact test that an image is as likely to be better under one as under the other. Of one seed
    it is McNemar's (1947) in its exact form. Of several seeds an image counts once, for the side that is right on it
    in more of them: counted once a seed, as if they were different images, chance would look like evidence."""
    paths = np.concatenate([image_paths for image_paths, _, _ in predictions])
    gains = np.concatenate(
        [correct.astype(np.int64) - reference_correct.astype(np.int64) for _, correct, reference_correct in predictions]
    )
    _, image_index = np.unique(paths, return_inverse=True)
    gain_per_image = np.bincount(image_index, weights=gains)
    num_better, num_worse = int((gain_per_image > 0).sum()), int((gain_per_image < 0).sum())
    return float(stats.binomtest(num_better, num_better + num_worse).pvalue) if num_better + num_worse else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that the chance of even one false alarm among all stays below the level at which they are read,
    however the tests hang together (Holm 1979). In the order given."""
    values, count = np.asarray(p_values, dtype=float), len(p_values)
    order = np.argsort(values, kind="stable")
    cumulative_max = np.maximum.accumulate(values[order] * (count - np.arange(count)))
    adjusted_p_values = np.empty(count)
    adjusted_p_values[order] = np.minimum(1.0, cumulative_max)
    return adjusted_p_values.tolist()
