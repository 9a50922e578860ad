"""Statistics over test images, or over groups of them: the units that chance draws independently.

Images of one patient, camera or video resemble each other, so that they are one unit: its group. Without groups each
image is a unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE_LEVEL = 0.95
NUM_RESAMPLES = 2000
MAX_WEIGHTS = 2**22  # resampled weights in memory at once
MAX_EXACT_STATES = 2**27  # additions of the exact distribution, about a second; beyond that it is normal


@dataclass(frozen=True)
class UnitSums:
    """A sum and a number of predictions for each unit.

    Attributes:
        sums: in how many predictions the configuration is correct, or in how many more than the reference; float64
            [units].
        counts: number of predictions; float64 [units].
        has_groups: whether the units are groups; otherwise they are images.
        num_images: number of different images.
    """

    sums: np.ndarray
    counts: np.ndarray
    has_groups: bool
    num_images: int

    @property
    def mean(self) -> float:
        """The mean over predictions."""
        return float(self.sums.sum() / self.counts.sum())

    @property
    def std_error(self) -> float:
        """The standard error of `mean` over units, by linearization of the ratio (Cochran 1977, 6.4); nan for one
        unit."""
        num_units = len(self.sums)
        if num_units < 2:
            return float("nan")
        residuals = self.sums - self.mean * self.counts
        return float(np.sqrt(num_units / (num_units - 1) * (residuals**2).sum()) / self.counts.sum())


def sum_over_units(images: np.ndarray, groups: np.ndarray, values: np.ndarray) -> UnitSums:
    """Sum `values`, float64 [n], of predictions for `images` [n] over their `groups` [n]."""
    names, unit_index = np.unique(groups, return_inverse=True)
    num_images = len(np.unique(images))
    sums = np.bincount(unit_index, weights=values)
    counts = np.bincount(unit_index).astype(np.float64)
    return UnitSums(sums, counts, len(names) < num_images, num_images)


def compute_sign_flip_p_value(units: UnitSums) -> float:
    """Return the two-sided mid-p value of the sign-flip test of "the mean is 0": each unit is as likely to be in favor
    of the configuration as of the reference, by the same amount. Without any difference it is 1.

    For one seed and no groups this is McNemar's test (1947) in its mid-p form (Fagerland, Lydersen and Laake 2013),
    which keeps the level where the exact one falls far below it. `units.sums` are whole numbers, so that the
    distribution is exact, by convolution; from about ten thousand unequal units on it is approximated by the normal
    one.
    """
    amounts = np.abs(np.rint(units.sums)).astype(np.int64)
    amounts = amounts[amounts > 0]
    observed = abs(int(np.rint(units.sums).sum()))
    if not len(amounts):
        return 1.0
    if len(amounts) * amounts.sum() > MAX_EXACT_STATES and len(set(amounts.tolist())) > 1:
        return float(min(1.0, 2 * stats.norm.sf(observed / np.sqrt((amounts**2).sum()))))
    return _compute_mid_p(amounts, observed)


def _compute_mid_p(amounts: np.ndarray, observed: int) -> float:
    """Return P(|S| > observed) + P(|S| = observed) / 2, S being the sum of `amounts` with random signs."""
    if len(set(amounts.tolist())) == 1:  # binomial, for any number of units
        step, count = int(amounts[0]), len(amounts)
        successes = (observed // step + count) // 2
        above = float(stats.binom.sf(successes, count, 0.5))
        equal = float(stats.binom.pmf(successes, count, 0.5))
    else:
        probabilities = np.ones(1)  # of the sums -total, -total + 2, ..., total
        for amount in amounts.tolist():
            shifted = np.zeros(len(probabilities) + amount)
            shifted[: len(probabilities)] += probabilities / 2
            shifted[amount:] += probabilities / 2
            probabilities = shifted
        index = (observed + int(amounts.sum())) // 2
        above, equal = float(probabilities[index + 1 :].sum()), float(probabilities[index])
    return 1.0 if observed == 0 else min(1.0, 2 * above + equal)


def compute_mean_interval(units: UnitSums) -> tuple[float, float]:
    """Return the 95 % interval of the mean by a bootstrap over units, 2000 resamples.

    Percentile intervals are too narrow with few units. They are expanded so that they would equal Student's for normal
    data (Hesterberg 2015, "What teachers should know about the bootstrap", section 4.3).
    """
    num_units = len(units.sums)
    quantile = stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, num_units - 1) * np.sqrt(num_units / (num_units - 1))
    tail = float(stats.norm.cdf(-quantile))
    low, high = np.quantile(resample_means(units), (tail, 1 - tail))
    return float(low), float(high)


def resample_means(units: UnitSums) -> np.ndarray:
    """Return the mean of each of 2000 resamples of the units, float64; always the same."""
    rng, num_units = np.random.default_rng(0), len(units.sums)
    num_rows = max(1, MAX_WEIGHTS // num_units)
    means = []
    for start in range(0, NUM_RESAMPLES, num_rows):
        num_resamples = min(num_rows, NUM_RESAMPLES - start)
        weights = rng.multinomial(num_units, np.full(num_units, 1 / num_units), num_resamples)
        means.append((weights @ units.sums) / (weights @ units.counts))
    return np.concatenate(means)
