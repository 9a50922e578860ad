"""Whether a probability of 0.8 is right in 80 of 100 cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BINS = 15
DRAWS = 1000


@dataclass(frozen=True)
class Reliability:
    """Predictions by their probability, in bins of equal width, all arrays [bins]: how many, their mean probability,
    and the share that is right; both nan in an empty bin. `error` is the expected calibration error."""

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    error: float


def reliability(probabilities: np.ndarray, right: np.ndarray, bins: int = BINS) -> Reliability:
    """Of the probabilities [n] of the predicted classes and whether these are right, bool [n]. The expected calibration
    error (Naeini et al. 2015; 15 bins as in Guo et al. 2017) is the mean distance between the two, weighted by
    counts."""
    places = _bins(probabilities, bins)
    counts = np.bincount(places, minlength=bins)
    sums = np.bincount(places, probabilities, bins), np.bincount(places, right, bins)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = (one / counts for one in sums)
    return Reliability(counts, confidence, accuracy, float(np.abs(sums[0] - sums[1]).sum() / len(places)))


def error_interval(probabilities: np.ndarray, right: np.ndarray, bins: int = BINS) -> tuple[float, float]:
    """95 % of the expected calibration error, by the basic bootstrap of 1000 draws: resampling makes the error larger,
    as any sampling does, and that interval takes off what the percentiles would keep. Where that is more than the
    error itself, which then is mostly chance, the interval is widened to hold it."""
    places, gaps, count = _bins(probabilities, bins), probabilities - right, len(right)
    dice, drawn = np.random.default_rng(0), np.empty(DRAWS)
    for number in range(DRAWS):
        chosen = dice.integers(0, count, count)
        drawn[number] = np.abs(np.bincount(places[chosen], gaps[chosen], bins)).sum() / count
    error = np.abs(np.bincount(places, gaps, bins)).sum() / count
    low, high = np.quantile(drawn, (0.025, 0.975))
    return max(0.0, float(min(error, 2 * error - high))), min(1.0, float(max(error, 2 * error - low)))


def _bins(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """int64 [n]; a probability on an edge counts to the bin below."""
    places: np.ndarray = np.clip(np.ceil(probabilities * bins).astype(np.int64) - 1, 0, bins - 1)
    return places
