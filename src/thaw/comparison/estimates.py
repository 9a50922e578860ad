"""The accuracy of one configuration with its interval, as its design needs it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from thaw.comparison.designs import Design, ScoredRun, average_by_split, compute_test_to_train_ratio
from thaw.comparison.significance import SamplingUnit, compute_corrected_std_error
from thaw.metrics.bootstrap import CONFIDENCE_LEVEL, compute_mean_interval, sum_over_units
from thaw.metrics.per_class import wilson_interval

INTERVAL_METHODS: dict[SamplingUnit, str] = {
    "seeds": "Student's t over seeds: what other seeds would give on these test images",
    "splits": "corrected resampled t over splits (Nadeau and Bengio 2003): what another random split would give",
    "images": "Wilson's over test images, marked *: what these networks would give on other images of the same kind",
    "groups": "bootstrap over groups of test images, marked *: what these networks would give on other groups",
}


@dataclass(frozen=True)
class Estimate:
    """A mean accuracy with its 95 % interval `low` to `high` over `sampling_unit`. `std` is that of the runs; it
    divides by n - 1 and is nan for one run."""

    mean: float
    std: float
    low: float
    high: float
    sampling_unit: SamplingUnit


def estimate_accuracy(runs: Sequence[ScoredRun], design: Design) -> Estimate:
    """Return the accuracy of a configuration with the runs `runs`, at least one.

    The interval is Student's (1908) over seeds if all runs have the same test images, the corrected one over splits if
    they overlap, and over all images, each tested once, for folds. With one run, or if all agree, which would make the
    interval a point, it is over images: Wilson's (1927), or a bootstrap over their groups.
    """
    accuracies = np.array([run.correct.mean() for run in runs])
    std = float(accuracies.std(ddof=1)) if len(runs) > 1 else math.nan
    values = average_by_split(runs, accuracies.tolist()) if design == "resamples" else accuracies
    if design == "folds" or len(values) < 2 or np.ptp(values) == 0:
        return _estimate_over_units(runs, std, accuracies)
    ratio = compute_test_to_train_ratio(runs) if design == "resamples" else 0.0
    mean, std_error = float(values.mean()), compute_corrected_std_error(values, ratio)
    low, high = stats.t.interval(CONFIDENCE_LEVEL, len(values) - 1, loc=mean, scale=std_error)
    unit: SamplingUnit = "splits" if design == "resamples" else "seeds"
    return Estimate(mean, std, max(0.0, float(low)), min(1.0, float(high)), unit)


def _estimate_over_units(runs: Sequence[ScoredRun], std: float, accuracies: np.ndarray) -> Estimate:
    images, groups, correct = (
        np.concatenate([getattr(run, name) for run in runs]) for name in ("images", "groups", "correct")
    )
    units = sum_over_units(images, groups, correct)
    interval = compute_mean_interval(units) if units.has_groups else None
    if interval is not None:
        return Estimate(units.mean, std, max(0.0, interval[0]), min(1.0, interval[1]), "groups")
    count = len(units.sums)  # groups that all agree count as one image each
    low, high = wilson_interval(units.mean * count, count)
    mean = float(accuracies[0]) if len(accuracies) == 1 else units.mean
    return Estimate(mean, std, low, high, "groups" if units.has_groups else "images")
