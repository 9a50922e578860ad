"""A recipe's training for a few steps, to measure something: it writes nothing, and nothing of it is kept."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from thaw.config.schema import Recipe
from thaw.strategy.plan import PhasePlan, Plan
from thaw.training.assembly import Assembly, assembled
from thaw.training.learner import Learner
from thaw.training.run import Run
from thaw.training.train import quieten


def rehearsed(recipe: Recipe) -> Assembly:
    """The parts of a run of `recipe`, which leaves no run directory. Raises UserFault as training would."""
    quieten()
    with tempfile.TemporaryDirectory() as aside:  # for what a run records of itself
        return assembled(Run(Path(aside), recipe))


def in_phase(learner: Learner, phase: PhasePlan) -> None:
    """Lets `learner` train as in `phase` alone, from its first step on and however many epochs it takes."""
    alone = dataclasses.replace(phase, start=0, schedule=(0, phase.end), restarts_optimizer=False)
    learner.plan = Plan((alone,))


def trainer_for_steps(recipe: Recipe, parts: Assembly, steps: int, accumulate: int, *callbacks: Callback) -> pl.Trainer:
    """A Trainer that steps as the recipe's own does on one device, for `steps` optimizer steps."""
    return pl.Trainer(
        accelerator=parts.accelerator,
        devices=1,
        precision=parts.precision,
        accumulate_grad_batches=accumulate,
        gradient_clip_val=recipe.trainer.clip_norm,
        max_epochs=-1,
        max_steps=steps,
        callbacks=list(callbacks),
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
