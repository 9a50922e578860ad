"""Compute the factor of the learning rate for an optimizer step: a pure function of the number of the step and of the
validation losses so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

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

MIN_CYCLE_RATES = 3  # a rise, a peak and a fall


def compute_lr_factor(
    scheduler: SchedulerConfig, step: int, steps_per_epoch: int, epochs: int, losses: Sequence[float] = ()
) -> float:
    """Return the factor of all learning rates at `step`, counted from 0.

    `losses` are the validation losses of the epochs before that of `step`; only `plateau` uses them.
    """
    if scheduler.interval == "epoch":
        step -= step % steps_per_epoch
    total_steps = steps_per_epoch * epochs
    if isinstance(scheduler, OneCycleSchedule):
        num_rates = epochs if scheduler.interval == "epoch" else total_steps
        return _compute_one_cycle_factor(scheduler, step, total_steps, num_rates)
    warmup_steps = scheduler.warmup_epochs * steps_per_epoch
    if step < warmup_steps:
        return (step + 1) / (warmup_steps + 1)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps - 1))
    return _compute_factor_after_warmup(scheduler, step // steps_per_epoch, progress, losses)


def _compute_factor_after_warmup(
    scheduler: ConstantSchedule
    | StepSchedule
    | MultiStepSchedule
    | CosineSchedule
    | PolynomialSchedule
    | PlateauSchedule,
    epoch: int,
    progress: float,
    losses: Sequence[float],
) -> float:
    """Return the factor; `progress` is 0 at the first step after warmup and 1 at the last step of the run."""
    match scheduler:
        case ConstantSchedule():
            return 1.0
        case StepSchedule():
            return float(scheduler.gamma ** (epoch // scheduler.step_size))
        case MultiStepSchedule():
            return float(scheduler.gamma ** sum(milestone <= epoch for milestone in scheduler.milestones))
        case CosineSchedule():
            return _anneal_cosine(1.0, scheduler.min_lr_ratio, progress)
        case PolynomialSchedule():
            return float(scheduler.min_lr_ratio + (1 - scheduler.min_lr_ratio) * (1 - progress) ** scheduler.power)
        case PlateauSchedule():
            return _compute_plateau_factor(scheduler, losses)


def _compute_plateau_factor(scheduler: PlateauSchedule, losses: Sequence[float]) -> float:
    """Count as torch's ReduceLROnPlateau does with mode="min" and threshold_mode="rel"."""
    lr_factor, best_loss, num_bad_epochs = 1.0, math.inf, 0
    for loss in losses:
        if loss < best_loss * (1 - scheduler.threshold):
            best_loss, num_bad_epochs = loss, 0
        else:
            num_bad_epochs += 1
        if num_bad_epochs > scheduler.patience:
            lr_factor, num_bad_epochs = max(lr_factor * scheduler.gamma, scheduler.min_lr_ratio), 0
    return lr_factor


def _compute_one_cycle_factor(scheduler: OneCycleSchedule, step: int, total_steps: int, num_rates: int) -> float:
    """Return the factor; one or two rates are too few for a cycle, so they start at its peak."""
    start, end = 1 / scheduler.div_factor, 1 / (scheduler.div_factor * scheduler.final_div_factor)
    if num_rates < MIN_CYCLE_RATES:
        return _anneal_cosine(1.0, end, step / max(1, total_steps - 1))
    peak_step = scheduler.pct_start * total_steps - 1
    if step <= peak_step:
        return _anneal_cosine(start, 1.0, step / max(peak_step, 1e-9))
    return _anneal_cosine(1.0, end, (step - peak_step) / max(1e-9, total_steps - 1 - peak_step))


def _anneal_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, max(0.0, progress)))) / 2
