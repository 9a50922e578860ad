"""Train a recipe for a few steps to measure something. Nothing is written."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch.optim import Optimizer

from thaw.config.schema import Recipe
from thaw.runs.run import Run
from thaw.strategy.plan import PhasePlan, Plan
from thaw.system.reporter import SILENT, Reporter
from thaw.training.dataloaders import EpochLoader
from thaw.training.module import ClassificationModule
from thaw.training.setup import TrainingSetup, setup_training
from thaw.training.train import build_step_callbacks, silence_lightning


def set_up_dry_run(recipe: Recipe, reporter: Reporter = SILENT) -> TrainingSetup:
    """Build what a run of `recipe` trains with, without a run directory.

    Raises:
        UserError: as training does.
    """
    silence_lightning()
    with tempfile.TemporaryDirectory() as temporary_directory:  # for the record of the run
        return setup_training(Run(Path(temporary_directory), recipe, {}), reporter)


def restrict_to_phase(module: ClassificationModule, phase: PhasePlan) -> None:
    """Let `module` train as in `phase` from its first step on, for any number of epochs."""
    single_phase = dataclasses.replace(phase, start=0, schedule=(0, phase.end), restarts_optimizer=False)
    module.plan = Plan((single_phase,))


def fit_steps(setup: TrainingSetup, loader: EpochLoader, steps: int, *callbacks: Callback) -> None:
    """Make `steps` optimizer steps like those of the recipe, on one device, in as many epochs of `loader` as needed."""
    devices = setup.components.devices
    trainer = pl.Trainer(
        accelerator=devices.accelerator,
        devices=1,
        precision=setup.components.lightning_precision,
        max_epochs=-1,
        callbacks=[*callbacks, *build_step_callbacks(setup), _StopCallback(steps)],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
    trainer.fit(setup.module, loader)


class _StopCallback(Callback):
    """Stops the training after some optimizer steps."""

    def __init__(self, steps: int) -> None:
        self.remaining_steps = steps

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Optimizer
    ) -> None:
        """Count the step, and stop after it if it is the last."""
        self.remaining_steps -= 1
        trainer.should_stop = self.remaining_steps == 0
