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

LEVEL = 0.95
FEWEST_SEEDS = 3  # of a t-test: with two, an interval of the difference is 18 times as wide as their spread
Over = Literal["seeds", "images"]
Pair = tuple[np.ndarray, np.ndarray, np.ndarray]  # paths [n], and which of them are right under one and the other


@dataclass(frozen=True)
class Spread:
    """Of one number a seed. `deviation` divides by n - 1 and is nan for one seed."""

    mean: float
    deviation: float
    low: float
    high: float
    over: Over


def spread_of(accuracies: Sequence[float], of_one: tuple[float, float]) -> Spread:
    """`accuracies` lie in 0..1, one a seed. The 95 % interval of their mean is Student's (1908), over seeds, cut off at
    0 and 1. Of one seed, and of seeds that all agree, whose spread would make it a point, it is `of_one`: Wilson's
    (1927) of one run, over test images."""
    values = np.asarray(accuracies, dtype=float)
    mean, count = float(values.mean()), len(values)
    deviation = float(values.std(ddof=1)) if count > 1 else float("nan")
    if count < 2 or np.ptp(values) == 0:
        return Spread(mean, deviation, *of_one, "images")
    low, high = stats.t.interval(LEVEL, count - 1, loc=mean, scale=deviation / np.sqrt(count))
    return Spread(mean, deviation, max(0.0, float(low)), min(1.0, float(high)), "seeds")


@dataclass(frozen=True)
class Paired:
    """One configuration less another, on their `seeds` shared seeds. `p` is two-sided; `adjusted` is Holm's."""

    difference: float
    p: float
    over: Over
    seeds: int
    adjusted: float = float("nan")


def paired(ours: Sequence[float], theirs: Sequence[float], pairs: Sequence[Pair]) -> Paired:
    """Tests whether two configurations are equally accurate. `ours` and `theirs` are accuracies, one a shared seed in
    the same order; `pairs` are the test images of these seeds.

    From three seeds on, Student's paired t-test over them. With fewer, or where all differences are the same and leave
    that test nothing to divide by, the exact sign test over images (see `over_images`).
    """
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    mean, count = float(differences.mean()), len(differences)
    if count < FEWEST_SEEDS or np.ptp(differences) < 1e-12:
        return Paired(mean, over_images(pairs), "images", count)
    return Paired(mean, float(stats.ttest_rel(ours, theirs).pvalue), "seeds", count)


def over_images(pairs: Sequence[Pair]) -> float:
    """Two-sided p of the exact test that an image is as likely to be better under one as under the other. Of one seed
    it is McNemar's (1947) in its exact form. Of several seeds an image counts once, for the side that is right on it
    in more of them: counted once a seed, as if they were different images, chance would look like evidence."""
    paths = np.concatenate([path for path, _, _ in pairs])
    gains = np.concatenate([one.astype(np.int64) - other.astype(np.int64) for _, one, other in pairs])
    _, which = np.unique(paths, return_inverse=True)
    by_image = np.bincount(which, weights=gains)
    better, worse = int((by_image > 0).sum()), int((by_image < 0).sum())
    return float(stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that the chance of even one false alarm among all stays below the level at which they are read,
    however the tests hang together (Holm 1979). In the order given."""
    values, count = np.asarray(p_values, dtype=float), len(p_values)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * (count - np.arange(count)))
    adjusted = np.empty(count)
    adjusted[order] = np.minimum(1.0, stepped)
    return adjusted.tolist()
