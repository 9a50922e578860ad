"""How the losses of a learning-rate range test are interpreted."""

import math

import pytest

from thaw.training.tuner.lr_finder import build_lr_curve

RATES = [1e-7 * 10 ** (step / 12.5) for step in range(100)]


def compute_losses(rate: float, rising_at: float | None) -> list[float]:
    """Losses from 3 to 0 that fall fastest, over the logarithm of the learning rate, near `rate`."""
    losses = [3 / (1 + (step_rate / rate) ** 1.5) for step_rate in RATES]
    if rising_at is None:
        return losses
    return [loss + (step_rate / rising_at) ** 2 for loss, step_rate in zip(losses, RATES, strict=True)]


@pytest.mark.parametrize("rate", [1e-4, 1e-3, 1e-2])
def test_the_steepest_descent_is_where_the_loss_falls_fastest(rate: float) -> None:
    curve = build_lr_curve(RATES, compute_losses(rate, rising_at=30 * rate))
    assert curve.steepest_step is not None
    assert rate / 2 < curve.learning_rates[curve.steepest_step] < 4 * rate  # the mean lags behind
    assert curve.is_bounded


def test_a_single_low_loss_is_not_a_descent() -> None:
    losses = compute_losses(1e-3, rising_at=0.1)
    losses[20] = 2.0
    curve = build_lr_curve(RATES, losses)
    assert curve.steepest_step is not None
    assert curve.learning_rates[curve.steepest_step] > 2e-4


def test_an_easy_first_batch_is_not_a_minimum() -> None:
    losses = compute_losses(1e-3, rising_at=0.01)
    curve = build_lr_curve(RATES, [0.5 * losses[0], *losses[1:]])
    assert curve.steepest_step is not None
    assert 5e-4 < curve.learning_rates[curve.steepest_step] < 4e-3


def test_a_loss_that_stays_low_has_a_steepest_descent_and_is_not_bounded() -> None:
    curve = build_lr_curve(RATES, compute_losses(1e-3, rising_at=None))
    assert not curve.has_diverged
    assert not curve.is_bounded
    assert curve.steepest_step is not None
    assert 5e-4 < curve.learning_rates[curve.steepest_step] < 4e-3


@pytest.mark.parametrize("losses", [[3.0] * 100, [3 + 0.02 * (-1) ** step for step in range(100)], [3.0, 2.0, 1.0]])
def test_without_a_falling_loss_or_enough_steps_there_is_no_suggestion(losses: list[float]) -> None:
    assert build_lr_curve(RATES, losses).steepest_step is None


@pytest.mark.parametrize("last", [1e9, math.inf, math.nan])
def test_diverging_losses_are_left_out(last: float) -> None:
    curve = build_lr_curve(RATES, [3.0] * 40 + [last] * 5)
    assert curve.has_diverged
    assert curve.losses == (3.0,) * 40
    assert len(curve.learning_rates) == len(curve.smoothed_losses) == 40


def test_smoothing_does_not_change_equal_losses() -> None:
    assert build_lr_curve(RATES, [2.5] * 30).smoothed_losses == pytest.approx([2.5] * 30)
