"""The learning-rate range test: a recipe's own training, while its learning rates rise."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from thaw.analysis.rate_curve import LRCurve, build_lr_curve
from thaw.config.faults import Problem, UserError
from thaw.config.schema import Recipe
from thaw.training.assembly import TrainingSetup
from thaw.training.learner import NonFiniteLossError
from thaw.training.rehearsal import build_dry_run_trainer, dry_run, restrict_to_phase

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
    module, recorder = setup.module, _LossRecorder(recipe.trainer.accumulate)
    base_learning_rate = recipe.optimizer.learning_rate  # of which the plan's rates are multiples
    module.schedule = lambda step, *_: rates[min(step, len(rates) - 1)] / base_learning_rate
    try:
        build_dry_run_trainer(recipe, setup, len(rates), recipe.trainer.accumulate, recorder).fit(
            module, setup.dataloaders.train
        )
    except NonFiniteLossError:
        recorder.transfer_losses()
        recorder.losses.append(float("nan"))
    except torch.OutOfMemoryError as error:
        fix = f"trainer.batch_size={max(2, recipe.trainer.batch_size // 2)}; thaw find batch_size says what fits"
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
