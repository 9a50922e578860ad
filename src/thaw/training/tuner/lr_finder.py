"""The learning-rate range test: a recipe's own training, while its learning rates rise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from thaw.config.errors import Problem, UserError
from thaw.config.schema import Recipe
from thaw.training.module import NonFiniteLossError
from thaw.training.setup import TrainingSetup
from thaw.training.tuner.dry_run import build_dry_run_trainer, dry_run, restrict_to_phase

STEPS_PER_CHECK = 10  # on a GPU, where asking for a loss waits for the device; what was trained too far is cut off


def range_test(recipe: Recipe, min_lr: float, max_lr: float, steps: int) -> tuple[LRCurve, str]:
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
    setup = dry_run(recipe)
    rates = [float(min_lr * (max_lr / min_lr) ** (step / (steps - 1))) for step in range(steps)]
    phase = setup.module.plan.phases[0]
    restrict_to_phase(setup.module, phase)
    setup.batch_source.prepare_phase(phase)
    return build_lr_curve(rates, _record_losses(recipe, setup, rates)), phase.name


def _record_losses(recipe: Recipe, setup: TrainingSetup, rates: list[float]) -> list[float]:
    module, recorder = setup.module, _LossRecorder(recipe.trainer.accumulate_grad_batches)
    base_learning_rate = recipe.optimizer.learning_rate  # of which the plan's rates are multiples
    module.schedule = lambda step, *_: rates[min(step, len(rates) - 1)] / base_learning_rate
    try:
        build_dry_run_trainer(recipe, setup, len(rates), recipe.trainer.accumulate_grad_batches, recorder).fit(
            module, setup.dataloaders.train
        )
    except NonFiniteLossError:
        recorder.transfer_losses()
        recorder.losses.append(float("nan"))
    except torch.OutOfMemoryError as error:
        fix = f"trainer.batch_size={max(2, recipe.trainer.batch_size // 2)}; thaw batch-size measures what fits"
        problem = Problem(f"trainer.batch_size={recipe.trainer.batch_size}", fix=fix)
        raise UserError("the GPU's memory is full.", [problem]) from error
    return recorder.losses[: len(rates)]


class _LossRecorder(Callback):
    """Collects the mean loss of each optimizer step's batches; stops the training once it has diverged."""

    def __init__(self, accumulate_grad_batches: int) -> None:
        self.accumulate_grad_batches = accumulate_grad_batches
        self.losses: list[float] = []
        self.pending_step_losses: list[Tensor] = []  # on the device, not asked for yet
        self.batch_losses: list[Tensor] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.batch_losses.append(outputs["loss"] * self.accumulate_grad_batches)  # by which Lightning has divided it
        if trainer.global_step == len(self.losses) + len(self.pending_step_losses):
            return  # the gradients of further batches are to be added
        self.pending_step_losses.append(torch.stack(self.batch_losses).mean())
        self.batch_losses = []
        if pl_module.device.type == "cpu" or len(self.pending_step_losses) == STEPS_PER_CHECK:
            self.transfer_losses()
            trainer.should_stop = build_lr_curve([], self.losses).has_diverged

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.transfer_losses()

    def transfer_losses(self) -> None:
        self.losses += torch.stack(self.pending_step_losses).tolist() if self.pending_step_losses else []
        self.pending_step_losses = []


SMOOTHING = 0.9  # the mean looks back some ten steps; 0.8 and 0.95 suggest the same within a factor of 3
SKIPPED_STEPS = 10  # steps; before, the smoothed loss is of a few losses, and their noise is its slope
SLOPE_SPAN = 4  # steps to either side of a slope: a single batch far from the mean is no descent
DIVERGENCE_FACTOR = 4.0
MIN_LOSS_DECREASE = 0.05  # of the loss; less is noise


@dataclass(frozen=True)
class LRCurve:
    """Losses by rising learning rate; `smoothed` is their exponential mean, corrected for its start at 0. `diverged`:
    the losses went on, to more than 4 times the best smoothed one, or to no number; that rest is left out."""

    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed_losses: tuple[float, ...]
    has_diverged: bool

    @property
    def minimum_step(self) -> int:
        """The step of the lowest smoothed loss, the first 10 left out where there are more."""
        first_step = min(SKIPPED_STEPS, len(self.smoothed_losses) - 1)
        return min(range(first_step, len(self.smoothed_losses)), key=self.smoothed_losses.__getitem__)

    @property
    def steepest_step(self) -> int | None:
        """The step before the minimum where the smoothed loss falls fastest against the logarithm of the rate, as the
        rate rises by the same factor at every step. None where the loss hardly falls, or too few steps were taken."""
        candidate_steps = range(SKIPPED_STEPS, min(self.minimum_step + 1, len(self.smoothed_losses) - SLOPE_SPAN))
        if not candidate_steps or self.smoothed_losses[self.minimum_step] > (1 - MIN_LOSS_DECREASE) * max(
            self.smoothed_losses[SKIPPED_STEPS : candidate_steps.stop]
        ):
            return None
        return min(
            candidate_steps,
            key=lambda step: self.smoothed_losses[step + SLOPE_SPAN] - self.smoothed_losses[step - SLOPE_SPAN],
        )

    @property
    def is_bounded(self) -> bool:
        """Whether the loss rises again behind its minimum. A few batches that are learned by heart leave a loss near 0
        that no rate drives up, and then the minimum lies where the test ended."""
        return (
            self.has_diverged
            or self.smoothed_losses[-1] > (1 + MIN_LOSS_DECREASE) * self.smoothed_losses[self.minimum_step]
        )


def build_lr_curve(learning_rates: Sequence[float], losses: Sequence[float]) -> LRCurve:
    """The curve up to where it diverges. `rates` and `losses` are by step."""
    smoothed_losses: list[float] = []
    average, best_loss = 0.0, math.inf
    for step, loss in enumerate(losses):
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smoothed_loss = average / (1 - SMOOTHING ** (step + 1))
        if not smoothed_loss <= DIVERGENCE_FACTOR * best_loss or not math.isfinite(smoothed_loss):
            break
        best_loss = min(best_loss, smoothed_loss)
        smoothed_losses.append(smoothed_loss)
    count = len(smoothed_losses)
    return LRCurve(tuple(learning_rates[:count]), tuple(losses[:count]), tuple(smoothed_losses), count < len(losses))
