"""Bootstrap intervals over images, or over groups of them: the units that chance draws independently.

Images of one patient, camera or video resemble each other, so that they are one unit: its group. Without groups each
image is a unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE_LEVEL = 0.95
NUM_RESAMPLES = 2000
MAX_WEIGHTS = 2**22  # resampled weights in memory at once
MIN_UNITS = 3  # a bootstrap of two has three outcomes, and covers 66 to 90 % of the time
MIN_SPREAD = 1e-12


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
    def effective_count(self) -> float:
        """How many units of equal size would tell as much."""
        return compute_effective_count(self.counts)

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


def compute_mean_interval(units: UnitSums) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean by a bootstrap over units, 2000 resamples; None if there are too few units,
    or if all resamples agree."""
    num_units = len(units.sums)
    means = [(weights @ units.sums) / (weights @ units.counts) for weights in iter_weights(num_units, NUM_RESAMPLES)]
    return compute_percentile_interval(np.concatenate(means), units.effective_count)


def compute_effective_count(counts: np.ndarray) -> float:
    """Return how many units of equal size would tell as much as units with `counts` predictions, float64 [units] (Kish
    1965, "Survey Sampling", section 11.7); of at least MIN_UNITS units it is at least MIN_UNITS.

    With 12 groups whose sizes spread by a factor of 2 to 4, the 95 % interval of the accuracy held the truth in 86 to
    93 % of simulations with the number of groups, and in 92 to 97 % with this one.
    """
    count = float(counts.sum() ** 2 / (counts**2).sum())
    return max(MIN_UNITS, count) if len(counts) >= MIN_UNITS else count


def iter_weights(num_units: int, num_resamples: int, num_values: int = 1) -> Iterator[np.ndarray]:
    """Yield how often each resample draws each unit, int64 [resamples, units], in several parts; always the same.

    A part is so small that `num_values` numbers for each resample fit into the memory too.
    """
    rng, num_rows = np.random.default_rng(0), max(1, MAX_WEIGHTS // max(num_units, num_values))
    for start in range(0, num_resamples, num_rows):
        yield rng.multinomial(num_units, np.full(num_units, 1 / num_units), min(num_rows, num_resamples - start))


def compute_percentile_interval(resampled: np.ndarray, num_units: float) -> tuple[float, float] | None:
    """Return the 95 % percentile interval of `resampled`, float64 [resamples]; None if all are equal or none is a
    number: the interval would be a point, and the data too few to show an error. `num_units` is the number of units, or
    the effective one.

    Percentiles alone are too narrow with few units. They are expanded so that they would equal Student's interval for
    normal data (Hesterberg 2015, "What teachers should know about the bootstrap", section 4.3).
    """
    values = resampled[np.isfinite(resampled)]
    if num_units < MIN_UNITS or not len(values) or np.ptp(values) < MIN_SPREAD:
        return None
    quantile = stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, num_units - 1) * np.sqrt(num_units / (num_units - 1))
    tail = float(stats.norm.cdf(-quantile))
    low, high = np.quantile(values, (tail, 1 - tail))
    return float(low), float(high)
