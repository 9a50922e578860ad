"""How the learning rate moves: a factor for every optimizer step, a pure function of the step's number and of the
validation losses so far."""

from __future__ import annotations

import math
from collections.abc import Sequence

from thaw.config.schema import Constant, Cosine, MultiStep, OneCycle, Plateau, Polynomial, Step

Scheduler = Constant | Step | MultiStep | Cosine | Polynomial | Plateau | OneCycle


def factor(scheduler: Scheduler, step: int, steps_per_epoch: int, epochs: int, losses: Sequence[float] = ()) -> float:
    """What the learning rates of step `step` (from 0) are multiplied with. `losses` are the validation losses of the
    epochs before the one that `step` lies in; `plateau` alone asks for them."""
    if scheduler.interval == "epoch":
        step -= step % steps_per_epoch
    total = steps_per_epoch * epochs
    if isinstance(scheduler, OneCycle):
        return _one_cycle(scheduler, step, total)
    warmup = scheduler.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    progress = min(1.0, (step - warmup) / max(1, total - warmup - 1))
    return _after_warmup(scheduler, step // steps_per_epoch, progress, losses)


def _after_warmup(
    scheduler: Constant | Step | MultiStep | Cosine | Polynomial | Plateau,
    epoch: int,
    progress: float,
    losses: Sequence[float],
) -> float:
    """`progress` is 0 at the first step after the warm-up and 1 at the last one of the run."""
    match scheduler:
        case Constant():
            return 1.0
        case Step():
            return float(scheduler.factor ** (epoch // scheduler.every_epochs))
        case MultiStep():
            return float(scheduler.factor ** sum(one <= epoch for one in scheduler.milestones))
        case Cosine():
            return _half_cosine(1.0, scheduler.final, progress)
        case Polynomial():
            return float(scheduler.final + (1 - scheduler.final) * (1 - progress) ** scheduler.power)
        case Plateau():
            return _plateau(scheduler, losses)


def _plateau(scheduler: Plateau, losses: Sequence[float]) -> float:
    """Counted as torch's ReduceLROnPlateau does with mode="min" and threshold_mode="rel"."""
    rate, best, in_vain = 1.0, math.inf, 0
    for loss in losses:
        if loss < best * (1 - scheduler.threshold):
            best, in_vain = loss, 0
        else:
            in_vain += 1
        if in_vain > scheduler.patience:
            rate, in_vain = max(rate * scheduler.factor, scheduler.floor), 0
    return rate


def _one_cycle(scheduler: OneCycle, step: int, total: int) -> float:
    start, end = 1 / scheduler.start_divisor, 1 / scheduler.end_divisor
    top = scheduler.rise * total - 1
    if step <= top:
        return _half_cosine(start, 1.0, step / max(top, 1e-9))
    return _half_cosine(1.0, end, (step - top) / max(1e-9, total - 1 - top))


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, max(0.0, progress)))) / 2
