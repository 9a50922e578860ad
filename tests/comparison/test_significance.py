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
from thaw.metrics.per_class import wilson_interval

ACCURACIES, REFERENCE_ACCURACIES = [0.91, 0.94, 0.92, 0.95], [0.90, 0.91, 0.93, 0.91]


def draw_predictions(seed: int, count: int = 200) -> PairedPredictions:
    rng = np.random.default_rng(seed)
    paths = np.array([f"{number:03}" for number in range(count)])
    return paths, rng.random(count) < 0.85, rng.random(count) < 0.7


def test_mean_standard_deviation_and_interval_over_seeds() -> None:
    estimate, expected = estimate_mean(ACCURACIES, (0, 1)), DescrStatsW(ACCURACIES)
    assert (estimate.mean, estimate.sampling_unit) == (pytest.approx(expected.mean), "seeds")
    assert estimate.std == pytest.approx(np.std(ACCURACIES, ddof=1))
    assert (estimate.low, estimate.high) == pytest.approx(expected.tconfint_mean(0.05))


def test_an_interval_over_two_seeds_is_clipped_to_accuracies() -> None:
    low, high = DescrStatsW([0.9, 0.95]).tconfint_mean(0.05)
    estimate = estimate_mean([0.9, 0.95], (0.8, 0.99))
    assert high > 1
    assert (estimate.low, estimate.high) == (pytest.approx(low), 1.0)


@pytest.mark.parametrize("accuracies", [[0.9], [0.9, 0.9, 0.9]])
def test_if_seeds_do_not_differ_the_interval_is_over_images(accuracies: list[float]) -> None:
    single_run_interval = wilson_interval(90, 100)
    estimate = estimate_mean(accuracies, single_run_interval)
    assert (estimate.low, estimate.high, estimate.sampling_unit) == (*single_run_interval, "images")
    assert single_run_interval == pytest.approx(proportion_confint(90, 100, method="wilson"))


def test_three_seeds_or_more_are_tested_by_a_paired_t_test() -> None:
    test = compute_paired_test(ACCURACIES, REFERENCE_ACCURACIES, [draw_predictions(0)])
    assert test.p_value == pytest.approx(stats.ttest_rel(ACCURACIES, REFERENCE_ACCURACIES).pvalue)
    assert test.p_value == pytest.approx(DescrStatsW(np.subtract(ACCURACIES, REFERENCE_ACCURACIES)).ttest_mean(0)[1])
    assert (test.sampling_unit, test.num_seeds, test.difference) == ("seeds", 4, pytest.approx(0.0175))


def test_one_seed_is_tested_by_mcnemars_exact_test() -> None:
    paths, correct, reference_correct = draw_predictions(1)
    table = [
        [int((correct & reference_correct).sum()), int((correct & ~reference_correct).sum())],
        [int((~correct & reference_correct).sum()), 0],
    ]
    test = compute_paired_test([0.9], [0.8], [(paths, correct, reference_correct)])
    assert (test.p_value, test.sampling_unit) == (pytest.approx(mcnemar(table, exact=True).pvalue), "images")


def test_an_image_counts_once_however_many_seeds_see_it() -> None:
    predictions = draw_predictions(2)
    order = np.random.default_rng(0).permutation(len(predictions[0]))
    shuffled: PairedPredictions = tuple(values[order] for values in predictions)  # type: ignore[assignment]
    assert compute_sign_test_p_value([predictions, shuffled]) == pytest.approx(compute_sign_test_p_value([predictions]))
    other: PairedPredictions = (np.array([f"other {path}" for path in predictions[0]]), *predictions[1:])
    assert compute_sign_test_p_value([predictions, other]) < compute_sign_test_p_value([predictions])


def test_gains_of_one_seed_and_losses_of_another_cancel() -> None:
    paths, correct, reference_correct = draw_predictions(3)
    assert compute_sign_test_p_value([(paths, correct, reference_correct), (paths, reference_correct, correct)]) == 1.0


def test_equal_differences_are_tested_over_images() -> None:
    test = compute_paired_test([0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [draw_predictions(4)])
    assert (test.sampling_unit, test.p_value) == ("images", compute_sign_test_p_value([draw_predictions(4)]))


@pytest.mark.parametrize("p_values", [[0.01], [0.04, 0.001, 0.03, 0.9], [0.02, 0.02, 0.02]])
def test_holms_correction(p_values: list[float]) -> None:
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def test_holms_correction_of_no_tests_is_empty() -> None:
    assert holm([]) == []
