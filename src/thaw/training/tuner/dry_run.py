"""A recipe's training for a few steps, to measure something: it writes nothing, and nothing of it is kept."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from thaw.config.schema import Recipe
from thaw.runs.run import Run
from thaw.strategy.plan import PhasePlan, Plan
from thaw.training.module import ClassificationModule
from thaw.training.setup import TrainingSetup, setup_training
from thaw.training.train import silence_lightning


def dry_run(recipe: Recipe) -> TrainingSetup:
    """The parts of a run of `recipe`, which leaves no run directory. Raises UserFault as training would."""
    silence_lightning()
    with tempfile.TemporaryDirectory() as temporary_directory:  # for what a run records of itself
        return setup_training(Run(Path(temporary_directory), recipe))


def restrict_to_phase(module: ClassificationModule, phase: PhasePlan) -> None:
    """Lets `learner` train as in `phase` alone, from its first step on and however many epochs it takes."""
    single_phase = dataclasses.replace(phase, start=0, schedule=(0, phase.end), restarts_optimizer=False)
    module.plan = Plan((single_phase,))


def build_dry_run_trainer(
    recipe: Recipe, setup: TrainingSetup, steps: int, accumulate_grad_batches: int, *callbacks: Callback
) -> pl.Trainer:
    """A Trainer that steps as the recipe's own does on one device, for `steps` optimizer steps."""
    return pl.Trainer(
        accelerator=setup.accelerator,
        devices=1,
        precision=setup.precision,
        accumulate_grad_batches=accumulate_grad_batches,
        gradient_clip_val=recipe.trainer.gradient_clip_val,
        max_epochs=-1,
        max_steps=steps,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
