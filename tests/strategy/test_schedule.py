"""Factors are held against torch's own schedulers, stepped as a training loop steps them."""

import math
from itertools import pairwise

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
    StepSchedule,
)
from thaw.strategy.schedule import Scheduler, compute_lr_factor

RATE = 0.1
LENGTHS = [(7, 4), (1, 30), (13, 1), (100, 9)]  # steps an epoch, epochs
EVERY_KIND = [
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


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=RATE)


def torchs_factors(scheduler: LRScheduler, steps: int) -> list[float]:
    factors = []
    for step in range(steps):
        factors.append(scheduler.get_last_lr()[0] / RATE)
        scheduler.optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return factors


def factors(scheduler: Scheduler, per_epoch: int, epochs: int) -> list[float]:
    return [compute_lr_factor(scheduler, step, per_epoch, epochs) for step in range(per_epoch * epochs)]


@pytest.mark.parametrize(("per_epoch", "epochs"), LENGTHS)
@pytest.mark.parametrize("rise", [0.15, 0.3, 0.75])
def test_one_cycle_is_that_of_torch(rise: float, per_epoch: int, epochs: int) -> None:
    ours = OneCycleSchedule(name="one_cycle", interval="step", pct_start=rise, div_factor=25.0, final_div_factor=400.0)
    theirs = OneCycleLR(optimizer(), RATE, per_epoch * epochs, pct_start=rise, div_factor=25, final_div_factor=400)
    assert factors(ours, per_epoch, epochs) == pytest.approx(torchs_factors(theirs, per_epoch * epochs), abs=1e-12)


@pytest.mark.parametrize(("per_epoch", "epochs"), LENGTHS)
def test_step_is_that_of_torch_stepped_once_an_epoch(per_epoch: int, epochs: int) -> None:
    by_epoch = torchs_factors(StepLR(optimizer(), step_size=3, gamma=0.1), epochs)
    ours = factors(
        StepSchedule(name="step", interval="step", warmup_epochs=0, step_size=3, gamma=0.1), per_epoch, epochs
    )
    assert ours == pytest.approx([by_epoch[step // per_epoch] for step in range(per_epoch * epochs)])


@pytest.mark.parametrize(("per_epoch", "epochs"), LENGTHS)
def test_cosine_without_warmup_is_that_of_torch_down_to_the_last_step(per_epoch: int, epochs: int) -> None:
    total = per_epoch * epochs
    theirs = CosineAnnealingLR(optimizer(), T_max=total - 1, eta_min=0.1 * RATE)
    ours = factors(CosineSchedule(name="cosine", interval="step", warmup_epochs=0, min_lr_ratio=0.1), per_epoch, epochs)
    assert ours == pytest.approx(torchs_factors(theirs, total))


@pytest.mark.parametrize(("per_epoch", "epochs"), LENGTHS)
def test_multi_step_is_that_of_torch_stepped_once_an_epoch(per_epoch: int, epochs: int) -> None:
    by_epoch = torchs_factors(MultiStepLR(optimizer(), [2, 5, 6], gamma=0.3), epochs)
    ours = MultiStepSchedule(name="multi_step", interval="step", warmup_epochs=0, milestones=[6, 2, 5], gamma=0.3)
    expected = [by_epoch[step // per_epoch] for step in range(per_epoch * epochs)]
    assert factors(ours, per_epoch, epochs) == pytest.approx(expected)


@pytest.mark.parametrize(("per_epoch", "epochs"), LENGTHS)
@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_polynomial_is_that_of_torch_down_to_the_last_step(power: float, per_epoch: int, epochs: int) -> None:
    total = per_epoch * epochs
    theirs = torchs_factors(PolynomialLR(optimizer(), total_iters=total - 1, power=power), total)
    ours = PolynomialSchedule(name="polynomial", interval="step", warmup_epochs=0, power=power, min_lr_ratio=0.0)
    # torch multiplies from step to step, which loses digits where the power is below 1 and the rate near 0
    assert factors(ours, per_epoch, epochs) == pytest.approx(theirs, abs=1e-6)


def test_polynomial_ends_at_its_end_after_a_warmup() -> None:
    ours = PolynomialSchedule(name="polynomial", interval="step", warmup_epochs=1, power=1.0, min_lr_ratio=0.1)
    assert factors(ours, 4, 3) == pytest.approx([0.2, 0.4, 0.6, 0.8, *(1.0 - 0.9 * step / 7 for step in range(8))])


LOSSES = {
    "falls": [1.0 / epoch for epoch in range(1, 20)],
    "stays": [0.7] * 20,
    "rises": [0.1 * epoch for epoch in range(1, 20)],
    "by less than the threshold": [1.0, 0.995, 0.99, 0.985, 0.98, 0.975, 0.97, 0.5, 0.499, 0.498, 0.497, 0.496, 0.4],
    "is no number": [1.0, 0.9, *[math.nan] * 6, 0.8],
    "at random": torch.rand(60, generator=torch.Generator().manual_seed(0)).tolist(),
}


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES)
@pytest.mark.parametrize(("patience", "threshold", "floor"), [(0, 0.0, 0.0), (1, 0.01, 0.05), (3, 1e-4, 0.3)])
def test_plateau_is_that_of_torch(patience: int, threshold: float, floor: float, losses: list[float]) -> None:
    ours = PlateauSchedule(
        name="plateau",
        interval="step",
        warmup_epochs=0,
        patience=patience,
        gamma=0.5,
        threshold=threshold,
        min_lr_ratio=floor,
    )
    theirs = ReduceLROnPlateau(
        optimizer(), factor=0.5, patience=patience, threshold=threshold, min_lr=floor * RATE, eps=0.0
    )
    for epoch, loss in enumerate(losses):
        theirs.step(loss)
        after = compute_lr_factor(ours, (epoch + 1) * 7, 7, len(losses) + 1, losses[: epoch + 1])
        assert after == pytest.approx(theirs.optimizer.param_groups[0]["lr"] / RATE)


def test_plateau_without_a_loss_yet_is_at_the_full_rate_after_its_warmup() -> None:
    ours = PlateauSchedule(
        name="plateau", interval="step", warmup_epochs=1, patience=0, gamma=0.5, threshold=0.0, min_lr_ratio=0.0
    )
    assert factors(ours, 4, 2) == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 4)


@pytest.mark.parametrize("scheduler", EVERY_KIND, ids=str)
def test_by_the_epoch_the_first_steps_factor_holds_for_the_whole_epoch(scheduler: Scheduler) -> None:
    losses = [1.0, 2.0, 3.0]
    by_step = scheduler.model_copy(update={"interval": "step"})
    by_epoch = scheduler.model_copy(update={"interval": "epoch"})
    for step in range(5 * 4):
        first = step // 5 * 5
        expected = compute_lr_factor(by_step, first, 5, 4, losses[: step // 5])
        assert compute_lr_factor(by_epoch, step, 5, 4, losses[: step // 5]) == expected


def test_cosine_rises_in_a_line_and_then_only_falls_to_its_end() -> None:
    rates = factors(
        CosineSchedule(name="cosine", interval="step", warmup_epochs=2, min_lr_ratio=0.05), per_epoch=10, epochs=8
    )
    rises = [later - earlier for earlier, later in pairwise(rates[:21])]
    assert rises == pytest.approx([rates[0]] * 20)
    assert rates[20] == 1.0
    assert all(earlier > later for earlier, later in pairwise(rates[20:]))
    assert rates[-1] == pytest.approx(0.05)


def test_constant_stays_at_the_full_rate() -> None:
    assert factors(ConstantSchedule(name="constant", interval="step", warmup_epochs=0), 5, 3) == [1.0] * 15


def test_constant_stays_there_after_its_warmup() -> None:
    rates = factors(ConstantSchedule(name="constant", interval="step", warmup_epochs=1), 4, 3)
    assert rates == pytest.approx([0.2, 0.4, 0.6, 0.8] + [1.0] * 8)


@pytest.mark.parametrize(("per_epoch", "epochs"), [*LENGTHS, (1, 1), (1, 2), (2, 1)])
@pytest.mark.parametrize("scheduler", EVERY_KIND, ids=str)
def test_no_step_has_a_rate_above_the_full_one_or_none_at_all(
    scheduler: Scheduler, per_epoch: int, epochs: int
) -> None:
    """The step after the last too: Lightning asks for it."""
    for step in range(per_epoch * epochs + 2):
        rate = compute_lr_factor(scheduler, step, per_epoch, epochs)
        assert math.isfinite(rate)
        assert 0.0 <= rate <= 1.0
