"""The learning-rate range test: train a recipe while its learning rates rise."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from matplotlib.figure import Figure
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from thaw.config.errors import Problem, UserError
from thaw.config.schema import Recipe
from thaw.data.batches import Batch
from thaw.system.files import write_text
from thaw.system.reporter import SILENT, Reporter
from thaw.system.tables import build_data_frame
from thaw.training.callbacks.checks import NonFiniteLossError
from thaw.training.dataloaders import EpochLoader, EpochPreparation
from thaw.training.module import ClassificationModule
from thaw.training.setup import TrainingSetup
from thaw.training.tuner.dry_run import fit_steps, restrict_to_phase, set_up_dry_run
from thaw.visualization.plots.encode import encode_png, save_figure
from thaw.visualization.plots.style import HIGHLIGHT_COLOR, TRAIN_COLOR, VAL_COLOR
from thaw.visualization.plots.text import format_label
from thaw.visualization.reports.html import encode_data_uri

STEPS_PER_CHECK = 10  # on a GPU, where reading a loss waits for the device; steps after divergence are discarded
SMOOTHING = 0.9  # the mean covers some ten steps; 0.8 and 0.95 give the same suggestion within a factor of 3
SKIPPED_STEPS = 10  # steps; before, the smoothed loss is a mean of few losses, and their noise is its slope
SLOPE_SPAN = 4  # steps on either side of a slope: a single batch far from the mean is not a descent
DIVERGENCE_FACTOR = 4.0
MIN_LOSS_DECREASE = 0.05  # relative; less is noise
CURVE_COLUMNS = ("learning_rate", "loss", "smoothed_loss")


def range_test(
    recipe: Recipe, min_lr: float, max_lr: float, steps: int, reporter: Reporter = SILENT
) -> tuple[LRCurve, str]:
    """Train up to `steps` optimizer steps while `optimizer.learning_rate` rises from `min_lr` to `max_lr`.

    It rises by the same factor at every step (Smith 2015, "Cyclical learning rates for training neural networks").
    Returns the losses and the name of the phase that trained: the first of the plan, for as many epochs as the steps
    take. Stops when the losses diverge.

    Every part keeps its multiplier: the learning rate of the head is as much higher as in training. Lightning's
    `Tuner.lr_find` (2.6.6) gives all parameter groups one rate, so it answers for another training; it also waits for
    the device at every step, and computes slopes over the rate instead of its logarithm, which favors the lowest rates.

    Raises:
        UserError: as training does, or if the GPU's memory is full.
    """
    setup = set_up_dry_run(recipe, reporter)
    rates = [float(min_lr * (max_lr / min_lr) ** (step / (steps - 1))) for step in range(steps)]
    phase = setup.plan.phases[0]
    restrict_to_phase(setup.module, phase)
    return build_lr_curve(rates, _record_losses(setup, rates)), phase.name


def _record_losses(setup: TrainingSetup, rates: list[float]) -> list[float]:
    recipe, module, recorder = setup.components.recipe, setup.module, _LossRecorder()
    base_learning_rate = recipe.optimizer.learning_rate  # the plan's learning rates are multiples of it
    module.optimization.schedule = lambda step, *_: rates[min(step, len(rates) - 1)] / base_learning_rate
    callbacks = (EpochPreparation(setup.batch_source, recipe.seed), recorder)
    try:
        fit_steps(setup, EpochLoader(setup.loaders.train), len(rates), *callbacks)
    except NonFiniteLossError:
        recorder.transfer_losses()
        recorder.losses.append(float("nan"))
    except torch.OutOfMemoryError as error:
        fix = f"trainer.batch_size={max(2, recipe.trainer.batch_size // 2)}; thaw batch-size measures what fits"
        problem = Problem(f"trainer.batch_size={recipe.trainer.batch_size}", fix=fix)
        raise UserError("the GPU's memory is full.", [problem]) from error
    return recorder.losses[: len(rates)]


class _LossRecorder(Callback):
    """Records the mean loss over the images of each optimizer step; stops the training when it diverges."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.pending_step_losses: list[Tensor] = []  # on the device, not read yet
        self.batch_losses: list[Tensor] = []

    def on_batch_end(self, trainer: pl.Trainer, pl_module: ClassificationModule, batch: Batch, loss: Tensor) -> None:
        self.batch_losses.append(loss)  # its share of the step's loss
        if pl_module.step == len(self.losses) + len(self.pending_step_losses):
            return  # the gradients of further batches accumulate
        self.pending_step_losses.append(torch.stack(self.batch_losses).sum())
        self.batch_losses = []
        if pl_module.device.type == "cpu" or len(self.pending_step_losses) == STEPS_PER_CHECK:
            self.transfer_losses()
            trainer.should_stop |= build_lr_curve([], self.losses).has_diverged

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.transfer_losses()

    def transfer_losses(self) -> None:
        """Read the pending losses from the device."""
        self.losses += torch.stack(self.pending_step_losses).tolist() if self.pending_step_losses else []
        self.pending_step_losses = []


@dataclass(frozen=True)
class LRCurve:
    """Losses over rising learning rates, up to where they diverge.

    `smoothed_losses` are their exponential mean, corrected for its start at 0. `has_diverged`: later losses were more
    than 4 times the best smoothed loss, or not finite; they are left out.
    """

    learning_rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed_losses: tuple[float, ...]
    has_diverged: bool

    @property
    def minimum_step(self) -> int:
        """The step with the lowest smoothed loss, not among the first 10 if there are more."""
        first_step = min(SKIPPED_STEPS, len(self.smoothed_losses) - 1)
        return min(range(first_step, len(self.smoothed_losses)), key=self.smoothed_losses.__getitem__)

    @property
    def steepest_step(self) -> int | None:
        """The step before the minimum where the smoothed loss falls fastest over the logarithm of the learning rate.

        None if the loss hardly falls, or there are too few steps.
        """
        candidate_steps = range(SKIPPED_STEPS, min(self.minimum_step + 1, len(self.smoothed_losses) - SLOPE_SPAN))
        if not candidate_steps:
            return None
        highest_loss = max(self.smoothed_losses[SKIPPED_STEPS : candidate_steps.stop])
        if self.smoothed_losses[self.minimum_step] > (1 - MIN_LOSS_DECREASE) * highest_loss:
            return None
        return min(
            candidate_steps,
            key=lambda step: self.smoothed_losses[step + SLOPE_SPAN] - self.smoothed_losses[step - SLOPE_SPAN],
        )

    @property
    def suggestion(self) -> float | None:
        """The learning rate at the steepest step, None if the loss hardly falls."""
        return None if self.steepest_step is None else self.learning_rates[self.steepest_step]

    def to_frame(self) -> Any:
        """Return one row per step: learning rate, loss, smoothed loss. A pandas data frame if pandas is installed,
        otherwise a list of dicts."""
        steps = zip(self.learning_rates, self.losses, self.smoothed_losses, strict=True)
        return build_data_frame([dict(zip(CURVE_COLUMNS, step, strict=True)) for step in steps])

    def __repr__(self) -> str:
        suggestion = "none" if self.suggestion is None else f"{self.suggestion:.1e}"
        return f"LRCurve({len(self.losses)} steps, suggestion {suggestion})"

    def _repr_html_(self) -> str:
        figure = draw_lr_curve(self, repr(self))
        return f'<img src="{encode_data_uri(encode_png(figure))}" style="max-width: 100%">'

    @property
    def is_bounded(self) -> bool:
        """Whether the loss rises again after its minimum.

        If a network memorizes a few batches, its loss stays near 0 at any rate and has its minimum at the end.
        """
        rise = (1 + MIN_LOSS_DECREASE) * self.smoothed_losses[self.minimum_step]
        return self.has_diverged or self.smoothed_losses[-1] > rise


def build_lr_curve(learning_rates: Sequence[float], losses: Sequence[float]) -> LRCurve:
    """Build the curve, up to where it diverges, of one learning rate and one loss per step."""
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


def write_lr_curve(curve: LRCurve, title: str, folder: Path) -> None:
    """Write learning_rate.csv (step, learning_rate, loss, smoothed_loss) and learning_rate.png to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(curve.learning_rates, curve.losses, curve.smoothed_losses, strict=True)
    lines = [f"{step},{rate:.6g},{loss:.6g},{mean:.6g}" for step, (rate, loss, mean) in enumerate(rows, 1)]
    write_text(folder / "learning_rate.csv", "\n".join([",".join(["step", *CURVE_COLUMNS]), *lines]) + "\n")
    save_figure(draw_lr_curve(curve, title), folder / "learning_rate.png")


def draw_lr_curve(curve: LRCurve, title: str) -> Figure:
    """Draw loss and smoothed loss over the learning rate, with the suggestion if there is one."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    style: dict[str, Any] = {"linewidth": 0.8, "alpha": 0.6}
    axes.plot(curve.learning_rates, curve.losses, color=TRAIN_COLOR, label="loss of the step", **style)
    axes.plot(curve.learning_rates, curve.smoothed_losses, color=VAL_COLOR, label="smoothed")
    if (step := curve.steepest_step) is not None:
        rate = curve.learning_rates[step]
        axes.axvline(rate, color=HIGHLIGHT_COLOR, linewidth=0.8)
        label = f"steepest descent, {rate:.1e}"
        axes.plot(rate, curve.smoothed_losses[step], "o", color=HIGHLIGHT_COLOR, label=label)
    axes.set_xscale("log")
    axes.set_ylim(0, 1.25 * max(curve.smoothed_losses[: curve.minimum_step + 1]))  # above that it only diverges
    axes.set_xlabel("optimizer.learning_rate")
    axes.set_ylabel("training loss")
    axes.set_title(format_label(title, 80), loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    return figure
