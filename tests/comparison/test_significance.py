"""The statistics agree with scipy, statsmodels, and plain enumeration on the same numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW, ttost_paired

from thaw.comparison.designs import Design, PairedRun, ScoredRun, detect_design
from thaw.comparison.estimates import estimate_accuracy
from thaw.comparison.needed import estimate_needed_sample
from thaw.comparison.sign_flip import compute_sign_flip_p_value
from thaw.comparison.significance import (
    PairedTest,
    adjust_paired_tests,
    compute_corrected_std_error,
    compute_equivalence_p_value,
    compute_fold_factor,
    holm,
)
from thaw.comparison.significance import test_paired_runs as compare_paired_runs
from thaw.metrics.bootstrap import (
    UnitSums,
    compute_effective_count,
    compute_mean_interval,
    compute_percentile_interval,
    iter_weights,
    sum_over_units,
)

NUM_IMAGES = 200


def draw_pair(
    seed: int, accuracies: tuple[float, float] = (0.85, 0.7), first_image: int = 0, num_groups: int | None = None
) -> PairedRun:
    rng = np.random.default_rng(seed)
    images = np.array([f"{first_image + index:04}" for index in range(NUM_IMAGES)])
    groups = images if num_groups is None else np.array([f"g{index % num_groups}" for index in range(NUM_IMAGES)])
    correct, reference_correct = (rng.random(NUM_IMAGES) < accuracy for accuracy in accuracies)
    return PairedRun(seed, str(first_image), 800, False, images, groups, correct, reference_correct)


def score(pair: PairedRun) -> ScoredRun:
    return ScoredRun(pair.seed, pair.split, pair.num_train, pair.is_fold, pair.images, pair.groups, pair.correct)


def compare(pairs: list[PairedRun], design: Design = "seeds") -> PairedTest:
    (test,) = adjust_paired_tests([compare_paired_runs(pairs, design)])
    return test


def to_fold(pair: PairedRun) -> PairedRun:
    return PairedRun(**{**vars(pair), "is_fold": True})


def test_the_design_is_recognized_from_the_test_images() -> None:
    same = [draw_pair(seed) for seed in range(3)]
    overlapping = [draw_pair(seed, first_image=100 * seed) for seed in range(3)]
    disjoint = [to_fold(draw_pair(0, first_image=NUM_IMAGES * number)) for number in range(3)]
    assert detect_design(same) == "seeds"
    assert detect_design(overlapping) == "resamples"
    assert detect_design(disjoint) == "folds"
    assert detect_design([*disjoint, *map(to_fold, overlapping)]) == "resamples"  # folds of two partitions


def test_the_same_test_images_over_seeds_are_tested_by_a_paired_t_test() -> None:
    pairs = [draw_pair(seed, (0.85, 0.8)) for seed in range(4)]
    accuracies, reference_accuracies = (
        np.array([getattr(pair, name).mean() for pair in pairs]) for name in ("correct", "reference_correct")
    )
    expected = DescrStatsW(accuracies - reference_accuracies)
    test = compare(pairs)
    assert test.method == "seeds"
    assert test.p_value == pytest.approx(stats.ttest_rel(accuracies, reference_accuracies).pvalue)
    assert (test.low, test.high) == pytest.approx(expected.tconfint_mean(0.05))
    equivalence, _, _ = ttost_paired(accuracies, reference_accuracies, -0.01, 0.01)
    assert test.equivalence_p_value == pytest.approx(equivalence)
    estimate = estimate_accuracy([score(pair) for pair in pairs], "seeds")
    assert (estimate.low, estimate.high) == pytest.approx(DescrStatsW(accuracies).tconfint_mean(0.05))
    assert estimate.std == pytest.approx(np.std(accuracies, ddof=1))


def test_resampled_splits_are_tested_by_the_corrected_resampled_t_test() -> None:
    """Nadeau and Bengio (2003), equation 9, written out; seeds with the same split are averaged first."""
    pairs = [draw_pair(10 * split + seed, first_image=100 * split) for split in range(5) for seed in range(2)]
    means = np.array([pair.difference for pair in pairs]).reshape(5, 2).mean(1)
    std_error = math.sqrt((1 / 5 + 200 / 800) * means.var(ddof=1))
    test = compare(pairs, "resamples")
    assert (test.method, test.sampling_unit, test.sample.num_splits) == ("splits", "splits", 5)
    assert test.p_value == pytest.approx(2 * stats.t.sf(abs(means.mean()) / std_error, 4))
    assert (test.low, test.high) == pytest.approx(stats.t.interval(0.95, 4, means.mean(), std_error))
    assert compute_corrected_std_error(means, 0.0) == pytest.approx(stats.sem(means))
    assert test.p_value > stats.ttest_1samp(means, 0).pvalue  # the plain test takes the splits for independent


@pytest.mark.parametrize("num_pairs", [1, 2])
def test_few_seeds_are_tested_over_images(num_pairs: int) -> None:
    pairs = [draw_pair(seed, (0.85, 0.8)) for seed in range(num_pairs)]
    gains = sum(pair.correct.astype(int) - pair.reference_correct for pair in pairs)
    units = UnitSums(np.asarray(gains, float), np.full(NUM_IMAGES, num_pairs), False, NUM_IMAGES)
    test = compare(pairs)
    assert (test.method, test.sampling_unit) == ("images", "images")
    assert test.p_value == pytest.approx(compute_sign_flip_p_value(units))
    assert test.difference == pytest.approx(np.mean([pair.difference for pair in pairs]))


def test_one_seed_is_tested_by_mcnemars_mid_p_test() -> None:
    """The mid-p value is the exact one of statsmodels less the probability of the observed table."""
    pair = draw_pair(1, (0.85, 0.8))
    better = int((pair.correct & ~pair.reference_correct).sum())
    worse = int((~pair.correct & pair.reference_correct).sum())
    exact = mcnemar([[0, better], [worse, 0]], exact=True).pvalue
    assert compare([pair]).p_value == pytest.approx(exact - stats.binom.pmf(better, better + worse, 0.5))


@pytest.mark.parametrize("sums", [[3, 1, -2, 5, 0, 1], [1, 1, 1, -1], [2, -2], [7], [4, 4, -4, 4, 4]])
def test_the_sign_flip_test_counts_all_signs(sums: list[int]) -> None:
    totals = [
        abs(sum(sign * amount for sign, amount in zip(signs, sums, strict=True)))
        for signs in itertools.product((-1, 1), repeat=len(sums))
    ]
    observed = abs(sum(sums))
    above = np.mean([total > observed for total in totals])
    equal = np.mean([total == observed for total in totals])
    expected = 1.0 if observed == 0 else above + equal / 2
    units = UnitSums(np.array(sums, float), np.ones(len(sums)), True, len(sums))
    assert compute_sign_flip_p_value(units) == pytest.approx(expected)


def test_the_distribution_for_many_groups_is_nearly_the_exact_one() -> None:
    rng = np.random.default_rng(0)
    sums = rng.integers(-3, 5, 3000).astype(float)
    units = UnitSums(sums, np.ones(3000), True, 3000)
    normal = 2 * stats.norm.sf(abs(sums.sum()) / np.sqrt((sums**2).sum()))
    assert compute_sign_flip_p_value(units) == pytest.approx(normal, rel=0.05)


def test_images_of_one_group_are_one_unit() -> None:
    """Copies of an image in its group change nothing; as images of their own they look like evidence."""
    pair = draw_pair(2, (0.8, 0.75))
    names = ("images", "groups", "correct", "reference_correct")
    copied = {name: np.concatenate([getattr(pair, name)] * 3) for name in names}
    grouped = PairedRun(**{**vars(pair), **copied, "images": np.arange(600).astype(str)})
    ungrouped = PairedRun(**{**vars(grouped), "groups": grouped.images})
    assert compare([grouped]).method == "groups"
    assert compare([grouped]).p_value == pytest.approx(compare([pair]).p_value)
    assert compare([ungrouped]).p_value < compare([grouped]).p_value


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([5.0] * 12, 12), ([3, 1], 1.6), ([90, 5, 5], 3), ([40, 20, 10, 10, 10, 10], 100**2 / 2400)],
)
def test_unequal_groups_count_as_fewer_equal_ones(counts: list[float], expected: float) -> None:
    assert compute_effective_count(np.array(counts, float)) == pytest.approx(expected)


def test_the_interval_is_wider_if_one_group_has_most_images() -> None:
    rng = np.random.default_rng(0)
    means = rng.normal(size=20)
    unequal = np.r_[np.ones(19), 19.0]
    units = UnitSums(means * unequal, unequal, True, 38)
    interval = compute_mean_interval(units)
    assert interval is not None
    resampled = np.concatenate(
        [(weights @ units.sums) / (weights @ units.counts) for weights in iter_weights(20, 2000)]
    )
    plain = compute_percentile_interval(resampled, 20)
    assert plain is not None
    assert interval[0] < plain[0] < plain[1] < interval[1]


def test_the_interval_over_groups_is_a_bootstrap_of_groups_as_wide_as_students() -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=12)
    interval = compute_mean_interval(UnitSums(values, np.ones(12), True, 24))
    assert interval is not None
    low, high = interval
    expected_low, expected_high = DescrStatsW(values).tconfint_mean(0.05)
    assert high - low == pytest.approx(expected_high - expected_low, rel=0.1)
    many = UnitSums(rng.normal(size=2000), np.ones(2000), True, 4000)
    assert compute_mean_interval(many) == pytest.approx(DescrStatsW(many.sums).tconfint_mean(0.05), abs=0.005)


def test_folds_pool_the_predictions_of_all_images() -> None:
    folds = [to_fold(draw_pair(fold, (0.85, 0.8), first_image=NUM_IMAGES * fold)) for fold in range(5)]
    test = compare(folds, "folds")
    better = sum(int((fold.correct & ~fold.reference_correct).sum()) for fold in folds)
    worse = sum(int((~fold.correct & fold.reference_correct).sum()) for fold in folds)
    exact = mcnemar([[0, better], [worse, 0]], exact=True).pvalue - stats.binom.pmf(better, better + worse, 0.5)
    assert (test.method, test.sample.num_images, test.sample.num_splits) == ("pooled images", 1000, 5)
    assert test.p_value == pytest.approx(2 * stats.norm.sf(stats.norm.isf(exact / 2) / math.sqrt(4 / 3)))
    assert test.difference == pytest.approx((better - worse) / 1000)
    estimate = estimate_accuracy([score(fold) for fold in folds], "folds")
    num_correct = sum(int(fold.correct.sum()) for fold in folds)
    expected = proportion_confint(num_correct, 1000, method="wilson")
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx((num_correct / 1000, *expected))


@pytest.mark.parametrize(("num_folds", "factor"), [(2, 2), (3, 1.5), (4, 4 / 3), (5, 4 / 3), (100, 4 / 3)])
def test_fewer_folds_share_fewer_train_images_of_all_and_count_less(num_folds: int, factor: float) -> None:
    assert compute_fold_factor(num_folds) == pytest.approx(factor)


def test_two_folds_are_enough_for_a_test_and_one_is_a_plain_test_set() -> None:
    folds = [to_fold(draw_pair(fold, first_image=NUM_IMAGES * fold, num_groups=20)) for fold in range(2)]
    assert compare(folds, "folds").method == "pooled groups"
    assert compare(folds[:1], detect_design(folds[:1])).method == "groups"


@pytest.mark.parametrize(
    ("correct", "reference_correct", "p_value"),
    [([True] * 20, [True] * 20, 1.0), ([True] * 20, [False] * 20, 2 * 0.5**21), ([True], [False], 0.5)],
)
def test_edges_of_a_test_over_images(correct: list[bool], reference_correct: list[bool], p_value: float) -> None:
    images = np.arange(len(correct)).astype(str)
    pair = PairedRun(0, "a", 10, False, images, images, np.array(correct), np.array(reference_correct))
    test = compare([pair])
    assert test.p_value == pytest.approx(p_value)
    assert -1 <= test.low < test.high <= 1
    assert test.std_error > 0


def test_one_group_alone_shows_nothing() -> None:
    pair = draw_pair(4, (1.0, 0.0), num_groups=1)
    test = compare([pair])
    assert (test.sample.num_groups, test.p_value, test.is_different) == (1, 0.5, False)


@pytest.mark.parametrize("runs", [[0.9], [0.9, 0.9, 0.9]])
def test_if_seeds_do_not_differ_the_interval_is_over_images(runs: list[float]) -> None:
    images, correct = np.arange(100).astype(str), np.arange(100) < 90
    scored = [ScoredRun(seed, "a", 100, False, images, images, correct) for seed in range(len(runs))]
    estimate = estimate_accuracy(scored, "seeds")
    assert estimate.sampling_unit == "images"
    assert (estimate.low, estimate.high) == pytest.approx(proportion_confint(90, 100, method="wilson"))


def test_an_interval_over_two_seeds_is_clipped_to_accuracies() -> None:
    runs = [score(draw_pair(seed, (accuracy, 0.5))) for seed, accuracy in enumerate((0.9, 0.97))]
    estimate = estimate_accuracy(runs, "seeds")
    assert estimate.high == 1.0
    assert estimate.sampling_unit == "seeds"


def test_an_image_counts_once_however_many_seeds_see_it() -> None:
    pair = draw_pair(2, (0.85, 0.8))
    order = np.random.default_rng(0).permutation(NUM_IMAGES)
    names = ("images", "groups", "correct", "reference_correct")
    shuffled = PairedRun(**{**vars(pair), **{name: getattr(pair, name)[order] for name in names}, "seed": 9})
    assert compare([pair, shuffled]).p_value == pytest.approx(compare([pair]).p_value)


def test_equivalence_within_a_point_is_shown_by_many_images_and_no_difference() -> None:
    rng = np.random.default_rng(0)
    images, correct = np.arange(20_000).astype(str), rng.random(20_000) < 0.9
    other = correct ^ (rng.random(20_000) < 0.02)
    test = compare([PairedRun(0, "a", 100, False, images, images, correct, other & correct | other)])
    assert test.is_equivalent == (abs(test.difference) + 1.645 * test.std_error < 0.01)
    same = compare([PairedRun(0, "a", 100, False, images, images, correct, correct)])
    assert (same.is_equivalent, same.is_different, estimate_needed_sample(same)) == (True, False, None)
    assert compute_equivalence_p_value(0.02, 0.001, math.inf) > 0.999


def test_what_would_decide_a_test_grows_with_the_noise_and_would_decide_it() -> None:
    pair = draw_pair(5, (0.82, 0.8))
    test = compare([pair])
    needed = estimate_needed_sample(test)
    assert needed is not None
    assert (needed.unit, needed.goal) == ("test images", "difference")
    total = NUM_IMAGES + needed.count
    statistic = abs(test.difference) / (test.std_error * math.sqrt(NUM_IMAGES / total))
    assert stats.norm.cdf(statistic - stats.norm.ppf(0.975)) == pytest.approx(0.8, abs=0.02)
    assert len(str(needed.count).rstrip("0")) <= 2


@pytest.mark.parametrize("p_values", [[0.01], [0.04, 0.001, 0.03, 0.9], [0.02, 0.02, 0.02]])
def test_holms_correction(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holms_correction_of_no_tests_is_empty() -> None:
    assert holm([]) == []
    assert adjust_paired_tests([]) == []


def test_sums_over_groups() -> None:
    images, groups = np.array(["a", "b", "c", "a"]), np.array(["x", "x", "y", "x"])
    units = sum_over_units(images, groups, np.array([1.0, 0.0, 1.0, 1.0]))
    assert (units.sums.tolist(), units.counts.tolist()) == ([2.0, 1.0], [3.0, 1.0])
    assert (units.has_groups, units.num_images, units.mean) == (True, 3, 0.75)
