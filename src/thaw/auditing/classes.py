"""Find pairs of classes that the features do not tell apart, or that are mixed far more than others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.stats import binomtest, mannwhitneyu

from thaw.auditing.out_of_fold import OutOfFold
from thaw.metrics.per_class import Z95

MIN_IMAGES = 5  # of a class, for a statement about it
MIN_CONFUSED = 0.25  # of the images of a class that are predicted as another one it is not told apart from
MIN_MIXED = 0.1  # of the images of two classes that are predicted as the other one
MIN_TIMES_OTHERS = 5.0
SIGNIFICANCE_LEVEL = 0.05
MIN_PROBABILITY = 1e-6


@dataclass(frozen=True)
class ClassPair:
    """Two classes that are hard to tell apart.

    Attributes:
        first, second: labels.
        num_images: images of both.
        num_mixed: images of either that are predicted as the other.
        other_mixed: fraction of the images of two classes that are predicted as the other one, in all other pairs.
        separation: probability that of an image of each, the predictions order the two rightly; 0.5 is chance (area
            under the ROC curve).
        separation_ci95: its interval (Hanley and McNeil 1982).
        p_value: of such a separation by chance, if the predictions know nothing about the two (Mann and Whitney).
        is_inseparable: whether there is no separation above chance; otherwise the two are mixed more than others.
    """

    first: int
    second: int
    num_images: int
    num_mixed: int
    other_mixed: float
    separation: float
    separation_ci95: tuple[float, float]
    p_value: float
    is_inseparable: bool


def find_inseparable_classes(predictions: OutOfFold, labels: np.ndarray) -> tuple[ClassPair, ...]:
    """Return the pairs of classes that the predictions do not tell apart, then those mixed most; `labels` is int64.

    A pair is mixed far more than others if at least 10 % of its images are predicted as the other class, which is five
    times the fraction in the other pairs and significantly more (binomial test, corrected for the number of pairs).
    Images whose class is in no other fold are left out.
    """
    is_counted = predictions.is_predictable
    probabilities, labels = predictions.probabilities[is_counted], labels[is_counted]
    num_classes = probabilities.shape[1]
    confusion = np.zeros((num_classes, num_classes), dtype=np.int64)
    np.add.at(confusion, (labels, probabilities.argmax(1)), 1)
    pairs = [_measure_pair(probabilities, labels, confusion, *pair) for pair in _iter_confused_pairs(confusion)]
    num_pairs = num_classes * (num_classes - 1) // 2
    found_pairs = [pair for pair in pairs if pair.is_inseparable or _is_mixed_most(pair, num_pairs)]
    return tuple(sorted(found_pairs, key=lambda pair: (not pair.is_inseparable, pair.separation)))


def _iter_confused_pairs(confusion: np.ndarray) -> Iterator[tuple[int, int]]:
    """Yield the pairs of classes of which enough images are confused to be listed."""
    sizes = confusion.sum(1)
    fractions = confusion / np.maximum(sizes, 1)[:, None]
    mixed = (confusion + confusion.T) / np.maximum(sizes[:, None] + sizes, 1)
    is_large = np.minimum(sizes[:, None], sizes) >= MIN_IMAGES
    is_confused = ((np.maximum(fractions, fractions.T) >= MIN_CONFUSED) | (mixed >= MIN_MIXED)) & is_large
    for first, second in zip(*np.nonzero(np.triu(is_confused, 1)), strict=True):
        yield int(first), int(second)


def _measure_pair(
    probabilities: np.ndarray, labels: np.ndarray, confusion: np.ndarray, first: int, second: int
) -> ClassPair:
    logarithms = np.log(probabilities[:, [first, second]] + MIN_PROBABILITY)
    scores = logarithms[:, 0] - logarithms[:, 1]
    first_scores, second_scores = scores[labels == first], scores[labels == second]
    counts = len(first_scores), len(second_scores)
    test = mannwhitneyu(first_scores, second_scores, alternative="greater")
    separation = float(test.statistic) / (counts[0] * counts[1])
    num_mixed = int(confusion[first, second] + confusion[second, first])
    is_confused = max(confusion[first, second] / counts[0], confusion[second, first] / counts[1]) >= MIN_CONFUSED
    return ClassPair(
        first,
        second,
        sum(counts),
        num_mixed,
        _compute_other_mixed(confusion, num_mixed, sum(counts)),
        separation,
        _compute_separation_interval(separation, *counts),
        float(test.pvalue),
        bool(is_confused and test.pvalue > SIGNIFICANCE_LEVEL),
    )


def _compute_other_mixed(confusion: np.ndarray, num_mixed: int, num_images: int) -> float:
    """Return the fraction of images predicted as the other class of a pair, in all pairs but that of these counts."""
    num_confused = int(confusion.sum() - np.trace(confusion)) - num_mixed
    num_in_pairs = int(confusion.sum()) * (len(confusion) - 1) - num_images
    return num_confused / num_in_pairs if num_in_pairs else 0.0


def _compute_separation_interval(separation: float, num_first: int, num_second: int) -> tuple[float, float]:
    first_term = separation / (2 - separation) - separation**2
    second_term = 2 * separation**2 / (1 + separation) - separation**2
    variance = separation * (1 - separation) + (num_first - 1) * first_term + (num_second - 1) * second_term
    half_width = Z95 * (max(variance, 0.0) / (num_first * num_second)) ** 0.5
    return max(0.0, separation - half_width), min(1.0, separation + half_width)


def _is_mixed_most(pair: ClassPair, num_pairs: int) -> bool:
    if num_pairs < 2 or pair.num_mixed < max(MIN_MIXED, MIN_TIMES_OTHERS * pair.other_mixed) * pair.num_images:
        return False
    test = binomtest(pair.num_mixed, pair.num_images, max(pair.other_mixed, MIN_PROBABILITY), alternative="greater")
    return bool(test.pvalue * num_pairs < SIGNIFICANCE_LEVEL)
