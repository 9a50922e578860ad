"""Tests of a configuration against the reference, one for each design; equivalence; Holm's correction.

The sampling unit of a test is what another experiment would draw anew. *Seeds*: initial weights, order of batches and
augmentation; data and test images stay. *Splits*: which images are trained on and which are tested. *Images* or
*groups*: other test images of the same kind; the trained networks stay. No number covers other kinds of data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from scipy import stats

from thaw.comparison.designs import Design, PairedRun, average_by_split, compute_test_to_train_ratio
from thaw.comparison.sign_flip import compute_sign_flip_p_value
from thaw.metrics.bootstrap import CONFIDENCE_LEVEL, UnitSums, compute_mean_interval, sum_over_units

MIN_T_TEST_VALUES = 3  # with two seeds an interval of the difference is 18 times as wide as their standard deviation
EQUIVALENCE_MARGIN = 0.01  # of accuracy: one percentage point
SIGNIFICANCE_LEVEL = 0.05
# The least factor of the variance over folds. Fold networks that change much with their train images vary more than
# k/(k - 1) says. `benchmarks/statistics.py`: k/(k - 1) alone raises 8 to 10 % false alarms for an unstable classifier.
MIN_FOLD_FACTOR = 4 / 3
MIN_SPREAD = 1e-12  # differences that are equal but for rounding
SamplingUnit = Literal["seeds", "splits", "images", "groups"]
Method = Literal["seeds", "splits", "images", "groups", "pooled images", "pooled groups"]
_FEW = "fewer than 3 seeds or splits are shared, or all differ by the same amount"
_FOLDS = "each predicted by the fold not trained on it; made stricter, as the folds share train images"
METHODS: dict[Method, str] = {
    "seeds": "paired t-test over the shared seeds, because all runs have the same test images",
    "splits": "corrected resampled t-test over the splits (Nadeau and Bengio 2003), because each split has other test "
    "images and the train images of different splits overlap, which a plain t-test takes for independent evidence",
    "images": f"McNemar's test over the test images (mid-p, marked *; an image counts once for all seeds), as {_FEW}",
    "groups": f"sign-flip test over the groups of test images (mid-p, marked *), as {_FEW}, and images of one group "
    "are no independent evidence",
    "pooled images": f"McNemar's test over all images (mid-p, marked *), {_FOLDS}",
    "pooled groups": f"sign-flip test over the groups of all images (mid-p, marked *), {_FOLDS}",
}


@dataclass(frozen=True)
class PairedTest:
    """A configuration minus the reference, on the runs that they share.

    Attributes:
        difference: of the accuracies.
        low: lower end of its 95 % interval.
        high: upper end.
        std_error: standard error of the difference, which the interval and the test of equivalence use.
        degrees_of_freedom: of Student's distribution; infinite for the normal one.
        p_value: two-sided, of "there is no difference".
        equivalence_p_value: of "they differ by at least EQUIVALENCE_MARGIN" (two one-sided tests, Schuirmann 1987).
        method: a key of METHODS.
        sample: what was compared.
        adjusted_p_value: `p_value` corrected for several tests by Holm's method.
        adjusted_equivalence_p_value: the same of `equivalence_p_value`.
    """

    difference: float
    low: float
    high: float
    std_error: float
    degrees_of_freedom: float
    p_value: float
    equivalence_p_value: float
    method: Method
    sample: PairedSample
    adjusted_p_value: float = math.nan
    adjusted_equivalence_p_value: float = math.nan

    @property
    def sampling_unit(self) -> SamplingUnit:
        """What another experiment would draw anew."""
        return "groups" if "groups" in self.method else "images" if "images" in self.method else self.method  # type: ignore[return-value]

    @property
    def is_different(self) -> bool:
        """Whether chance does not explain the difference."""
        return self.adjusted_p_value <= SIGNIFICANCE_LEVEL

    @property
    def is_equivalent(self) -> bool:
        """Whether the accuracies differ by less than EQUIVALENCE_MARGIN."""
        return self.adjusted_equivalence_p_value <= SIGNIFICANCE_LEVEL


@dataclass(frozen=True)
class PairedSample:
    """How many different seeds, splits, test images and groups of them a test compares. `num_groups` equals
    `num_images` if the data set has no groups."""

    num_seeds: int
    num_splits: int
    num_images: int
    num_groups: int


def test_paired_runs(pairs: Sequence[PairedRun], design: Design) -> PairedTest:
    """Test whether a configuration and the reference are equally accurate, by the test that `design` needs: see
    METHODS. At least one pair is needed."""
    differences = average_by_split(pairs, [pair.difference for pair in pairs])
    sample = PairedSample(
        len({pair.seed for pair in pairs}),
        len(differences),
        len(np.unique(np.concatenate([pair.images for pair in pairs]))),
        len(np.unique(np.concatenate([pair.groups for pair in pairs]))),
    )
    if design == "folds" and len(differences) > 1:
        return _test_units(pairs, sample, compute_fold_factor(len(differences)))
    if design == "seeds":
        differences = np.array([pair.difference for pair in pairs])
    if len(differences) < MIN_T_TEST_VALUES or np.ptp(differences) < MIN_SPREAD:
        return _test_units(pairs, sample)
    ratio = compute_test_to_train_ratio(pairs) if design == "resamples" else 0.0
    return _test_differences(differences, ratio, sample, "splits" if design == "resamples" else "seeds")


test_paired_runs.__test__ = False  # type: ignore[attr-defined]  # pytest would collect a function of this name


def compute_fold_factor(num_folds: int) -> float:
    """Return by what the variance of predictions pooled over `num_folds` folds is multiplied: the networks of k folds
    share train images, which makes their errors depend on each other.

    It is k/(k - 1), Nadeau and Bengio's (2003) correction for many splits with the train size of a fold, but at least
    MIN_FOLD_FACTOR.
    """
    return max(num_folds / (num_folds - 1), MIN_FOLD_FACTOR)


def compute_corrected_std_error(values: np.ndarray, test_to_train_ratio: float) -> float:
    """Return the standard error of the mean of `values`, one per split, when the train images of the splits overlap.

    Nadeau and Bengio (2003), "Inference for the generalization error", equation 9: the variance of the values times
    1/J + n_test/n_train instead of 1/J. With a ratio of 0 it is the usual standard error.
    """
    return float(values.std(ddof=1) * math.sqrt(1 / len(values) + test_to_train_ratio))


def _test_differences(differences: np.ndarray, ratio: float, sample: PairedSample, method: Method) -> PairedTest:
    mean, df = float(differences.mean()), len(differences) - 1
    std_error = compute_corrected_std_error(differences, ratio)
    margin = float(stats.t.ppf((1 + CONFIDENCE_LEVEL) / 2, df)) * std_error
    p_value = float(2 * stats.t.sf(abs(mean) / std_error, df))
    equivalence = compute_equivalence_p_value(mean, std_error, df)
    low, high = max(-1.0, mean - margin), min(1.0, mean + margin)
    return PairedTest(mean, low, high, std_error, df, p_value, equivalence, method, sample)


def _test_units(pairs: Sequence[PairedRun], sample: PairedSample, variance_factor: float = 1.0) -> PairedTest:
    """Test over images, or over groups if there are some. `variance_factor` multiplies the variance of the mean."""
    gains = [pair.correct.astype(np.float64) - pair.reference_correct for pair in pairs]
    images, groups = (np.concatenate([getattr(pair, name) for pair in pairs]) for name in ("images", "groups"))
    units = sum_over_units(images, groups, np.concatenate(gains))
    scale = math.sqrt(variance_factor)
    p_value = _soften(compute_sign_flip_p_value(units), scale)
    low, high, std_error, df = _estimate_over_units(units, scale)
    method: Method = "groups" if units.has_groups else "images"
    if variance_factor > 1:
        method = "pooled groups" if units.has_groups else "pooled images"
    # If the difference were the margin, at least that fraction of units would differ: few units show no equivalence.
    min_error = scale * math.sqrt(EQUIVALENCE_MARGIN * (1 - EQUIVALENCE_MARGIN) / len(units.sums))
    equivalence = compute_equivalence_p_value(units.mean, max(std_error, min_error), df)
    return PairedTest(units.mean, low, high, std_error, df, p_value, equivalence, method, sample)


def _soften(p_value: float, scale: float) -> float:
    """Return the two-sided p value of a normal statistic that is divided by `scale`."""
    return p_value if scale == 1 else float(2 * stats.norm.sf(stats.norm.isf(p_value / 2) / scale))


def _estimate_over_units(units: UnitSums, scale: float) -> tuple[float, float, float, float]:
    """Return the 95 % interval of the mean, its standard error and degrees of freedom.

    Over images it is Agresti and Min's interval (2005), which adds half an image to each case, so that it is no point
    if all predictions agree. Over groups it is a bootstrap, see `compute_mean_interval`.
    """
    mean, num_units = units.mean, len(units.sums)
    interval = compute_mean_interval(units) if units.has_groups else None
    if interval is not None:
        low, high = (mean + scale * (bound - mean) for bound in interval)
        return max(-1.0, low), min(1.0, high), units.std_error * scale, units.effective_count - 1
    mean_gains, count = units.sums / units.counts, num_units + 2
    center = float(mean_gains.sum() / count)
    std_error = scale * math.sqrt(max(0.0, ((mean_gains**2).sum() + 1) / count - center**2) / count)
    margin = float(stats.norm.ppf((1 + CONFIDENCE_LEVEL) / 2)) * std_error
    return max(-1.0, center - margin), min(1.0, center + margin), std_error, math.inf


def compute_equivalence_p_value(
    difference: float, std_error: float, degrees_of_freedom: float, margin: float = EQUIVALENCE_MARGIN
) -> float:
    """Return the p value of "the accuracies differ by at least `margin`": the larger of two one-sided tests (Schuirmann
    1987). Below 0.05 the 90 % interval of the difference lies within the margin."""
    if std_error == 0:
        return 0.0 if abs(difference) < margin else 1.0
    distances = np.array([margin - difference, margin + difference]) / std_error
    distribution = stats.norm if math.isinf(degrees_of_freedom) else stats.t(degrees_of_freedom)
    return float(distribution.sf(distances.min()))


def adjust_paired_tests(tests: Sequence[PairedTest]) -> list[PairedTest]:
    """Return `tests` with p values corrected for their number by Holm's method."""
    p_values = holm([test.p_value for test in tests])
    equivalence_p_values = holm([test.equivalence_p_value for test in tests])
    return [
        replace(test, adjusted_p_value=p_value, adjusted_equivalence_p_value=equivalence_p_value)
        for test, p_value, equivalence_p_value in zip(tests, p_values, equivalence_p_values, strict=True)
    ]


def holm(p_values: Sequence[float]) -> list[float]:
    """Return `p_values`, in their order, adjusted by Holm's method (1979): the chance of at least one false alarm among
    all tests stays below the level that they are read at, even if the tests depend on each other."""
    values, count = np.asarray(p_values, dtype=float), len(p_values)
    order = np.argsort(values, kind="stable")
    cumulative_max = np.maximum.accumulate(values[order] * (count - np.arange(count)))
    adjusted_p_values = np.empty(count)
    adjusted_p_values[order] = np.minimum(1.0, cumulative_max)
    return adjusted_p_values.tolist()
