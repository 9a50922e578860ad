"""How many more test images, groups or seeds would decide a comparison that is undecided."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from scipy import optimize, stats

from thaw.comparison.significance import EQUIVALENCE_MARGIN, PairedTest

POWER = 0.8
MAX_COUNT = 10_000_000  # a number that nobody labels
MAX_MARGIN_FRACTION = 0.95  # a difference closer to the margin needs 400 times the images of none
NAMES = {"seeds": "seeds", "splits": "test images", "images": "test images", "groups": "groups of test images"}


@dataclass(frozen=True)
class NeededSample:
    """About how many more `unit` would show, with a chance of 80 %, that there is a difference, or that there is none
    beyond the margin (`goal`), if the observed difference is the true one."""

    count: int
    unit: str
    goal: str

    def describe(self) -> str:
        """Return the sentence part, such as "about 300 more test images would decide it"."""
        verb = "show a difference" if self.goal == "difference" else "show that they are equivalent"
        return f"about {self.count:,} more {self.unit} would {verb}, if the observed difference is the true one"


def estimate_needed_sample(test: PairedTest) -> NeededSample | None:
    """Return what would decide `test`, whichever of difference and equivalence needs less; None if it is decided, or if
    no sensible number would decide it.

    The variance of the mean shrinks with the number of units. More splits of the same images would not help, as they
    share the images: for splits it is the test images that are counted.
    """
    if test.is_different or test.is_equivalent:
        return None
    units = {"seeds": test.sample.num_seeds, "groups": test.sample.num_groups}
    num_units = units.get(test.sampling_unit, test.sample.num_images)
    goals = {"difference": _compute_difference_error(test), "equivalence": _compute_equivalence_error(test)}
    counts = {
        goal: num_units * ((test.std_error / std_error) ** 2 - 1) for goal, std_error in goals.items() if std_error > 0
    }
    goal, count = min(counts.items(), key=lambda item: item[1], default=("", math.inf))
    if count > MAX_COUNT:
        return None
    return NeededSample(round_up(max(1.0, count)), NAMES[test.sampling_unit], goal)


def round_up(count: float) -> int:
    """Return `count` rounded up to two digits."""
    step = 10 ** max(0, math.floor(math.log10(count)) - 1)
    return int(math.ceil(count / step) * step)


def _compute_difference_error(test: PairedTest) -> float:
    """Return the standard error at which the observed difference is significant with the power POWER."""
    return abs(test.difference) / float(stats.norm.ppf(0.975) + stats.norm.ppf(POWER))


def _compute_equivalence_error(test: PairedTest) -> float:
    """Return the standard error at which two one-sided tests show equivalence with the power POWER; 0 if the observed
    difference is not well within the margin."""
    difference = abs(test.difference)
    if difference > MAX_MARGIN_FRACTION * EQUIVALENCE_MARGIN:
        return 0.0
    critical = float(stats.norm.ppf(0.95))

    def compute_excess_power(std_error: float) -> float:
        bounds = ((EQUIVALENCE_MARGIN + sign * difference) / std_error - critical for sign in (-1, 1))
        return float(sum(stats.norm.cdf(bound) for bound in bounds)) - 1 - POWER

    return _find_root(compute_excess_power)


def _find_root(function: Callable[[float], float]) -> float:
    return float(optimize.brentq(function, 1e-9, EQUIVALENCE_MARGIN))
