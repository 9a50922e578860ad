"""How the learning rate moves: a factor for every optimizer step, a pure function of the step's number."""

from __future__ import annotations

import math

from thaw.config.schema import Constant, Cosine, OneCycle, Step

Scheduler = Constant | Step | Cosine | OneCycle


def factor(scheduler: Scheduler, step: int, steps_per_epoch: int, epochs: int) -> float:
    """What the learning rates of step `step` (from 0) are multiplied with."""
    total = steps_per_epoch * epochs
    if isinstance(scheduler, OneCycle):
        return _one_cycle(scheduler, step, total)
    warmup = scheduler.warmup_epochs * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if isinstance(scheduler, Step):
        return float(scheduler.factor ** (step // steps_per_epoch // scheduler.every_epochs))
    if isinstance(scheduler, Cosine):
        return _half_cosine(1.0, scheduler.final, (step - warmup) / max(1, total - warmup - 1))
    return 1.0


def _one_cycle(scheduler: OneCycle, step: int, total: int) -> float:
    start, end = 1 / scheduler.start_divisor, 1 / scheduler.end_divisor
    top = scheduler.rise * total - 1
    if step <= top:
        return _half_cosine(start, 1.0, step / max(top, 1e-9))
    return _half_cosine(1.0, end, (step - top) / max(1e-9, total - 1 - top))


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * min(1.0, max(0.0, progress)))) / 2
