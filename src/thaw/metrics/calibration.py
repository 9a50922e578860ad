"""Measure calibration: whether predictions with a probability of 0.8 are correct in 80 of 100 cases."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

DEFAULT_BINS = 15
NUM_RESAMPLES = 1000


@dataclass(frozen=True)
class Reliability:
    """Predictions in bins of equal width by their probability. Arrays are [bins].

    Attributes:
        counts: number of predictions.
        confidence: mean probability; nan for an empty bin.
        accuracy: fraction of correct predictions; nan for an empty bin.
        ece: expected calibration error over all bins.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray
    ece: float


def compute_reliability(probabilities: np.ndarray, correct: np.ndarray, num_bins: int = DEFAULT_BINS) -> Reliability:
    """Bin the `probabilities` [n] of the predicted classes by whether these are `correct`, bool [n].

    The expected calibration error (Naeini et al. 2015; 15 bins as in Guo et al. 2017) is the mean distance between
    confidence and accuracy, weighted by counts.
    """
    bin_indices = _assign_bins(probabilities, num_bins)
    counts = np.bincount(bin_indices, minlength=num_bins)
    sums = np.bincount(bin_indices, probabilities, num_bins), np.bincount(bin_indices, correct, num_bins)
    with np.errstate(invalid="ignore"):
        confidence, accuracy = (bin_sums / counts for bin_sums in sums)
    return Reliability(counts, confidence, accuracy, float(np.abs(sums[0] - sums[1]).sum() / len(bin_indices)))


def compute_ece_interval(
    probabilities: np.ndarray, correct: np.ndarray, num_bins: int = DEFAULT_BINS
) -> tuple[float, float]:
    """Return the 95 % confidence interval of the expected calibration error, by a basic bootstrap of 1000 resamples.

    Resampling increases the error, and unlike the percentile bootstrap the basic one subtracts that bias. If the error
    itself is mostly bias, the interval is widened to include it.
    """
    bin_indices, gaps, count = _assign_bins(probabilities, num_bins), probabilities - correct, len(correct)
    rng, resampled_errors = np.random.default_rng(0), np.empty(NUM_RESAMPLES)
    for index in range(NUM_RESAMPLES):
        sample_indices = rng.integers(0, count, count)
        resampled_gaps = np.bincount(bin_indices[sample_indices], gaps[sample_indices], num_bins)
        resampled_errors[index] = np.abs(resampled_gaps).sum() / count
    error = np.abs(np.bincount(bin_indices, gaps, num_bins)).sum() / count
    low, high = np.quantile(resampled_errors, (0.025, 0.975))
    return max(0.0, float(min(error, 2 * error - high))), min(1.0, float(max(error, 2 * error - low)))


def _assign_bins(probabilities: np.ndarray, num_bins: int) -> np.ndarray:
    """Return the bin of each probability, int64 [n]; a probability on an edge belongs to the bin below."""
    bin_indices: np.ndarray = np.clip(np.ceil(probabilities * num_bins).astype(np.int64) - 1, 0, num_bins - 1)
    return bin_indices
