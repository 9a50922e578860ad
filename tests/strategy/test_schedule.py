"""Factors match torch's schedulers, stepped as in a training loop."""

import math
from itertools import pairwise
from typing import Literal

import pytest
import torch
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LRScheduler,
    MultiStepLR,
    OneCycleLR,
    PolynomialLR,
    ReduceLROnPlateau,
    StepLR,
)

from thaw.config.schema import (
    ConstantSchedule,
    CosineSchedule,
    MultiStepSchedule,
    OneCycleSchedule,
    PlateauSchedule,
    PolynomialSchedule,
    SchedulerConfig,
    StepSchedule,
)
from thaw.strategy.schedule import compute_lr_factor

RATE = 0.1
RUN_LENGTHS = [(7, 4), (1, 30), (13, 1), (3, 1), (100, 9)]  # steps per epoch, epochs
SCHEDULES = [
    ConstantSchedule(name="constant", interval="step", warmup_epochs=0),
    ConstantSchedule(name="constant", interval="step", warmup_epochs=0.5),
    StepSchedule(name="step", interval="step", warmup_epochs=0, step_size=2, gamma=0.1),
    StepSchedule(name="step", interval="step", warmup_epochs=0.5, step_size=1, gamma=0.5),
    CosineSchedule(name="cosine", interval="step", warmup_epochs=0, min_lr_ratio=0.0),
    CosineSchedule(name="cosine", interval="step", warmup_epochs=0.5, min_lr_ratio=0.1),
    CosineSchedule(name="cosine", interval="epoch", warmup_epochs=0.5, min_lr_ratio=0.0),
    MultiStepSchedule(name="multi_step", interval="step", warmup_epochs=0.5, milestones=[1, 3], gamma=0.1),
    PolynomialSchedule(name="polynomial", interval="step", warmup_epochs=0, power=2.0, min_lr_ratio=0.0),
    PolynomialSchedule(name="polynomial", interval="epoch", warmup_epochs=0.5, power=0.5, min_lr_ratio=0.2),
    PlateauSchedule(
        name="plateau", interval="step", warmup_epochs=0.5, patience=0, gamma=0.5, threshold=0.0, min_lr_ratio=0.0
    ),
    OneCycleSchedule(name="one_cycle", interval="epoch", pct_start=0.3, div_factor=25.0, final_div_factor=400.0),
    OneCycleSchedule(name="one_cycle", interval="step", pct_start=0.3, div_factor=25.0, final_div_factor=400.0),
    OneCycleSchedule(name="one_cycle", interval="step", pct_start=0.9, div_factor=1.0, final_div_factor=1.0),
]


def make_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)


def compute_torch_factors(scheduler: LRScheduler, steps: int) -> list[float]:
    factors = []
    for step in range(steps):
        factors.append(scheduler.get_last_lr()[0] / RATE)
        scheduler.optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return factors


def compute_factors(scheduler: SchedulerConfig, per_epoch: int, epochs: int) -> list[float]:
    return [compute_lr_factor(scheduler, step, per_epoch, epochs) for step in range(per_epoch * epochs)]


@pytest.mark.parametrize(("per_epoch", "epochs"), RUN_LENGTHS)
@pytest.mark.parametrize("pct_start", [0.15, 0.3, 0.75])
def test_one_cycle_matches_torch(pct_start: float, per_epoch: int, epochs: int) -> None:
    schedule = OneCycleSchedule(
        name="one_cycle", interval="step", pct_start=pct_start, div_factor=25.0, final_div_factor=400.0
    )
    expected = OneCycleLR(
        make_optimizer(), RATE, per_epoch * epochs, pct_start=pct_start, div_factor=25, final_div_factor=400
    )
    assert compute_factors(schedule, per_epoch, epochs) == pytest.approx(
        compute_torch_factors(expected, per_epoch * epochs), abs=1e-12
    )


@pytest.mark.parametrize("pct_start", [0.01, 0.3, 0.9])
@pytest.mark.parametrize(
    ("interval", "per_epoch", "epochs"),
    [("step", 1, 1), ("step", 2, 1), ("step", 1, 2), ("epoch", 9, 1), ("epoch", 9, 2)],
)
def test_one_cycle_of_one_or_two_rates_starts_at_its_peak(
    interval: Literal["step", "epoch"], per_epoch: int, epochs: int, pct_start: float
) -> None:
    schedule = OneCycleSchedule(
        name="one_cycle", interval=interval, pct_start=pct_start, div_factor=25.0, final_div_factor=400.0
    )
    factors = compute_factors(schedule, per_epoch, epochs)
    assert factors[0] == 1.0
    assert factors == sorted(factors, reverse=True)


@pytest.mark.parametrize(("per_epoch", "epochs"), RUN_LENGTHS)
def test_step_matches_torch_stepped_once_per_epoch(per_epoch: int, epochs: int) -> None:
    by_epoch = compute_torch_factors(StepLR(make_optimizer(), step_size=3, gamma=0.1), epochs)
    schedule = compute_factors(
        StepSchedule(name="step", interval="step", warmup_epochs=0, step_size=3, gamma=0.1), per_epoch, epochs
    )
    assert schedule == pytest.approx([by_epoch[step // per_epoch] for step in range(per_epoch * epochs)])


@pytest.mark.parametrize(("per_epoch", "epochs"), RUN_LENGTHS)
def test_cosine_without_warmup_matches_torch_to_the_last_step(per_epoch: int, epochs: int) -> None:
    total_steps = per_epoch * epochs
    expected = CosineAnnealingLR(make_optimizer(), T_max=total_steps - 1, eta_min=0.1 * RATE)
    schedule = compute_factors(
        CosineSchedule(name="cosine", interval="step", warmup_epochs=0, min_lr_ratio=0.1), per_epoch, epochs
    )
    assert schedule == pytest.approx(compute_torch_factors(expected, total_steps))


@pytest.mark.parametrize(("per_epoch", "epochs"), RUN_LENGTHS)
def test_multi_step_matches_torch_stepped_once_per_epoch(per_epoch: int, epochs: int) -> None:
    by_epoch = compute_torch_factors(MultiStepLR(make_optimizer(), [2, 5, 6], gamma=0.3), epochs)
    schedule = MultiStepSchedule(name="multi_step", interval="step", warmup_epochs=0, milestones=[6, 2, 5], gamma=0.3)
    expected = [by_epoch[step // per_epoch] for step in range(per_epoch * epochs)]
    assert compute_factors(schedule, per_epoch, epochs) == pytest.approx(expected)


@pytest.mark.parametrize(("per_epoch", "epochs"), RUN_LENGTHS)
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_polynomial_matches_torch_to_the_last_step(power: float, per_epoch: int, epochs: int) -> None:
    total_steps = per_epoch * epochs
    expected = compute_torch_factors(
        PolynomialLR(make_optimizer(), total_iters=total_steps - 1, power=power), total_steps
    )
    schedule = PolynomialSchedule(name="polynomial", interval="step", warmup_epochs=0, power=power, min_lr_ratio=0.0)
    # torch multiplies step by step, which loses digits if the power is below 1 and the rate is near 0
    assert compute_factors(schedule, per_epoch, epochs) == pytest.approx(expected, abs=1e-6)


def test_polynomial_ends_at_its_minimum_after_warmup() -> None:
    schedule = PolynomialSchedule(name="polynomial", interval="step", warmup_epochs=1, power=1.0, min_lr_ratio=0.1)
    assert compute_factors(schedule, 4, 3) == pytest.approx(
        [0.2, 0.4, 0.6, 0.8, *(1.0 - 0.9 * step / 7 for step in range(8))]
    )


LOSSES = {
    "falls": [1.0 / epoch for epoch in range(1, 20)],
    "stays": [0.7] * 20,
    "differences": [0.1 * epoch for epoch in range(1, 20)],
    "by less than the threshold": [1.0, 0.995, 0.99, 0.985, 0.98, 0.975, 0.97, 0.5, 0.499, 0.498, 0.497, 0.496, 0.4],
    "is not a number": [1.0, 0.9, *[math.nan] * 6, 0.8],
    "at random": torch.rand(60, generator=torch.Generator().manual_seed(0)).tolist(),
}


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(("patience", "threshold", "min_lr_ratio"), [(0, 0.0, 0.0), (1, 0.01, 0.05), (3, 1e-4, 0.3)])
def test_plateau_matches_torch(patience: int, threshold: float, min_lr_ratio: float, losses: list[float]) -> None:
    schedule = PlateauSchedule(
        name="plateau",
        interval="step",
        warmup_epochs=0,
        patience=patience,
        gamma=0.5,
        threshold=threshold,
        min_lr_ratio=min_lr_ratio,
    )
    expected = ReduceLROnPlateau(
        make_optimizer(), factor=0.5, patience=patience, threshold=threshold, min_lr=min_lr_ratio * RATE, eps=0.0
    )
    for epoch, loss in enumerate(losses):
        expected.step(loss)
        lr_factor = compute_lr_factor(schedule, (epoch + 1) * 7, 7, len(losses) + 1, losses[: epoch + 1])
        assert lr_factor == pytest.approx(expected.optimizer.param_groups[0]["lr"] / RATE)


def test_plateau_without_losses_is_at_the_full_rate_after_warmup() -> None:
    schedule = PlateauSchedule(
        name="plateau", interval="step", warmup_epochs=1, patience=0, gamma=0.5, threshold=0.0, min_lr_ratio=0.0
    )
    assert compute_factors(schedule, 4, 2) == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 4)


@pytest.mark.parametrize("scheduler", SCHEDULES, ids=str)
def test_with_interval_epoch_the_first_factor_applies_to_the_whole_epoch(scheduler: SchedulerConfig) -> None:
    losses = [1.0, 2.0, 3.0]
    by_step = scheduler.model_copy(update={"interval": "step"})
    by_epoch = scheduler.model_copy(update={"interval": "epoch"})
    for step in range(5 * 4):
        first_step = step // 5 * 5
        expected = compute_lr_factor(by_step, first_step, 5, 4, losses[: step // 5])
        assert compute_lr_factor(by_epoch, step, 5, 4, losses[: step // 5]) == expected


def test_cosine_rises_linearly_and_then_falls_to_its_minimum() -> None:
    lr_factors = compute_factors(
        CosineSchedule(name="cosine", interval="step", warmup_epochs=2, min_lr_ratio=0.05), per_epoch=10, epochs=8
    )
    differences = [later - earlier for earlier, later in pairwise(lr_factors[:21])]
    assert differences == pytest.approx([lr_factors[0]] * 20)
    assert lr_factors[20] == 1.0
    assert all(earlier > later for earlier, later in pairwise(lr_factors[20:]))
    assert lr_factors[-1] == pytest.approx(0.05)


def test_constant_stays_at_the_full_rate() -> None:
    assert compute_factors(ConstantSchedule(name="constant", interval="step", warmup_epochs=0), 5, 3) == [1.0] * 15


def test_constant_stays_at_the_full_rate_after_warmup() -> None:
    lr_factors = compute_factors(ConstantSchedule(name="constant", interval="step", warmup_epochs=1), 4, 3)
    assert lr_factors == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 8)


@pytest.mark.parametrize(("per_epoch", "epochs"), [*RUN_LENGTHS, (1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("scheduler", SCHEDULES, ids=str)
def test_every_factor_is_finite_and_between_0_and_1(scheduler: SchedulerConfig, per_epoch: int, epochs: int) -> None:
    """Test the step lr_factor the last too, which Lightning computes."""
    for step in range(per_epoch * epochs + 2):
        factor = compute_lr_factor(scheduler, step, per_epoch, epochs)
        assert math.isfinite(factor)
        assert 0.0 <= factor <= 1.0
