"""The statistics agree with scipy and statsmodels on the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.stats.weightstats import DescrStatsW

from thaw.comparison.significance import (
    PairedPredictions,
    compute_paired_test,
    compute_sign_test_p_value,
    estimate_mean,
    holm,
)
from thaw.metrics.classification import wilson_interval

OURS, THEIRS = [0.91, 0.94, 0.92, 0.95], [0.90, 0.91, 0.93, 0.91]


def images(seed: int, count: int = 200) -> PairedPredictions:
    dice = np.random.default_rng(seed)
    paths = np.array([f"{number:03}" for number in range(count)])
    return paths, dice.random(count) < 0.85, dice.random(count) < 0.7


def test_mean_spread_and_interval_over_seeds() -> None:
    spread, theirs = estimate_mean(OURS, (0, 1)), DescrStatsW(OURS)
    assert (spread.mean, spread.sampling_unit) == (pytest.approx(theirs.mean), "seeds")
    assert spread.std == pytest.approx(np.std(OURS, ddof=1))
    assert (spread.low, spread.high) == pytest.approx(theirs.tconfint_mean(0.05))


def test_an_interval_over_two_seeds_ends_where_accuracies_end() -> None:
    low, high = DescrStatsW([0.9, 0.95]).tconfint_mean(0.05)
    spread = estimate_mean([0.9, 0.95], (0.8, 0.99))
    assert high > 1
    assert (spread.low, spread.high) == (pytest.approx(low), 1.0)


@pytest.mark.parametrize("accuracies", [[0.9], [0.9, 0.9, 0.9]])
def test_where_seeds_have_no_spread_the_interval_is_one_over_images(accuracies: list[float]) -> None:
    of_one = wilson_interval(90, 100)
    spread = estimate_mean(accuracies, of_one)
    assert (spread.low, spread.high, spread.sampling_unit) == (*of_one, "images")
    assert of_one == pytest.approx(proportion_confint(90, 100, method="wilson"))


def test_three_seeds_or_more_are_tested_by_a_paired_t_test() -> None:
    test = compute_paired_test(OURS, THEIRS, [images(0)])
    assert test.p_value == pytest.approx(stats.ttest_rel(OURS, THEIRS).pvalue)
    assert test.p_value == pytest.approx(DescrStatsW(np.subtract(OURS, THEIRS)).ttest_mean(0)[1])
    assert (test.sampling_unit, test.num_seeds, test.difference) == ("seeds", 4, pytest.approx(0.0175))


def test_one_seed_is_tested_by_mcnemars_exact_test() -> None:
    paths, ours, theirs = images(1)
    table = [[int((ours & theirs).sum()), int((ours & ~theirs).sum())], [int((~ours & theirs).sum()), 0]]
    test = compute_paired_test([0.9], [0.8], [(paths, ours, theirs)])
    assert (test.p_value, test.sampling_unit) == (pytest.approx(mcnemar(table, exact=True).pvalue), "images")


def test_an_image_counts_once_however_many_seeds_see_it() -> None:
    once = images(2)
    shuffled = np.random.default_rng(0).permutation(len(once[0]))
    again: PairedPredictions = tuple(one[shuffled] for one in once)  # type: ignore[assignment]
    assert compute_sign_test_p_value([once, again]) == pytest.approx(compute_sign_test_p_value([once]))
    other: PairedPredictions = (np.array([f"other {path}" for path in once[0]]), *once[1:])
    assert compute_sign_test_p_value([once, other]) < compute_sign_test_p_value([once])


def test_gains_that_another_seed_takes_back_are_no_gains() -> None:
    paths, ours, theirs = images(3)
    assert compute_sign_test_p_value([(paths, ours, theirs), (paths, theirs, ours)]) == 1.0


def test_differences_that_are_all_the_same_are_tested_over_images() -> None:
    test = compute_paired_test([0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [images(4)])
    assert (test.sampling_unit, test.p_value) == ("images", compute_sign_test_p_value([images(4)]))


@pytest.mark.parametrize("p_values", [[0.01], [0.04, 0.001, 0.03, 0.9], [0.02, 0.02, 0.02]])
def test_holms_correction(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_there_may_be_nothing_to_correct() -> None:
    assert holm([]) == []
