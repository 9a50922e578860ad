"""The learning-rate range test: a recipe's own training, while its learning rates rise."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from thaw.analysis.rate_curve import RateCurve, curve_of
from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Recipe
from thaw.training.assembly import Assembly
from thaw.training.learner import NotFinite
from thaw.training.rehearsal import in_phase, rehearsed, trainer_for_steps

STEPS_PER_CHECK = 10  # on a GPU, where asking for a loss waits for the device; what was trained too far is cut off


def range_test(recipe: Recipe, lowest: float, highest: float, steps: int) -> tuple[RateCurve, str]:
    """Losses of at most `steps` optimizer steps while `optimizer.learning_rate` rises from `lowest` to `highest`, by
    the same factor at every step (Smith 2015, "Cyclical learning rates for training neural networks"), and the name of
    the phase that they are of: the first of the recipe's plan, over as many epochs as the steps take. Ends where the
    losses diverge.

    Every part keeps its multiplier: the head's rate lies as far above the stages' as in training. Lightning's
    `Tuner.lr_find` (2.6.6) gives all parameter groups one rate, and so answers for another training; it also waits for
    the device at every step, and takes its slope against the rate itself, which favours the lowest ones.

    Raises:
        UserFault: as training would.
    """
    parts = rehearsed(recipe)
    rates = [float(lowest * (highest / lowest) ** (step / (steps - 1))) for step in range(steps)]
    phase = parts.learner.plan.phases[0]
    in_phase(parts.learner, phase)
    parts.supply.enter(phase)
    return curve_of(rates, _losses(recipe, parts, rates)), phase.name


def _losses(recipe: Recipe, parts: Assembly, rates: list[float]) -> list[float]:
    learner, recorder = parts.learner, _Losses(recipe.trainer.accumulate)
    told = recipe.optimizer.learning_rate  # of which the plan's rates are multiples
    learner.schedule = lambda step, *_: rates[min(step, len(rates) - 1)] / told
    try:
        trainer_for_steps(recipe, parts, len(rates), recipe.trainer.accumulate, recorder).fit(learner, parts.feed.train)
    except NotFinite:
        recorder.fetch()
        recorder.losses.append(float("nan"))
    except torch.OutOfMemoryError as error:
        fix = f"trainer.batch_size={max(2, recipe.trainer.batch_size // 2)}; thaw find batch_size says what fits"
        fault = Fault(f"trainer.batch_size={recipe.trainer.batch_size}", fix=fix)
        raise UserFault("the GPU's memory is full.", [fault]) from error
    return recorder.losses[: len(rates)]


class _Losses(Callback):
    """Collects the mean loss of each optimizer step's batches; stops the training once it has diverged."""

    def __init__(self, accumulate: int) -> None:
        self.accumulate = accumulate
        self.losses: list[float] = []
        self.of_steps: list[Tensor] = []  # on the device, not asked for yet
        self.of_batches: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.of_batches.append(outputs["loss"] * self.accumulate)  # by which Lightning has divided it
        if trainer.global_step == len(self.losses) + len(self.of_steps):
            return  # the gradients of further batches are to be added
        self.of_steps.append(torch.stack(self.of_batches).mean())
        self.of_batches = []
        if pl_module.device.type == "cpu" or len(self.of_steps) == STEPS_PER_CHECK:
            self.fetch()
            trainer.should_stop = curve_of([], self.losses).diverged

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.fetch()

    def fetch(self) -> None:
        self.losses += torch.stack(self.of_steps).tolist() if self.of_steps else []
        self.of_steps = []
