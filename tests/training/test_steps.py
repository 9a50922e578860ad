"""The steps of an epoch: what callbacks see of them on images and on cached features, and what a checkpoint records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from tests.conftest import TINY
from thaw.config.compose import compose_recipe
from thaw.data.batches import Batch
from thaw.runs.lifecycle import create_run
from thaw.training.module import ClassificationModule
from thaw.training.setup import setup_training
from thaw.training.train import _fit, build_trainer, silence_lightning

# 36 images in batches of 8 are 5 batches, of which 2, 2 and 1 make a step; 16 validation images are 2 batches.
STEPS = ["backward", "batch", "backward", "step", "batch"]
EPOCH = ["epoch", *STEPS, *STEPS, "backward", "step", "batch", "evaluation", "evaluation"]


class Recorder(Callback):
    """Records the calls of hooks; the learning rate of the head and whether it has a gradient, before each step."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.learning_rates: list[float] = []
        self.steps: list[int] = []

    def on_train_batch_start(self, *_: Any) -> None:
        self.calls.append("epoch")

    def on_before_backward(self, *_: Any) -> None:
        self.calls.append("backward")

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        assert isinstance(pl_module, ClassificationModule)
        (group, *_) = (group for group in optimizer.param_groups if group["part"] == "head")
        assert all(parameter.grad is not None for parameter in group["params"])
        self.calls.append("step")
        self.learning_rates.append(group["lr"])
        self.steps.append(pl_module.step)

    def on_batch_end(self, trainer: pl.Trainer, pl_module: ClassificationModule, batch: Batch, *_: Any) -> None:
        assert len(batch.labels) == (4 if pl_module.is_last_batch else 8)
        self.calls.append("batch")

    def on_evaluation_batch_end(self, *_: Any) -> None:
        self.calls.append("evaluation")


@pytest.mark.parametrize("cache", ["off", "require"])
def test_callbacks_see_every_batch_and_every_step(cache: str, tmp_path: Path) -> None:
    silence_lightning()
    overrides = ("strategy=fixed", f"feature_cache={cache}", "trainer.accumulate_grad_batches=2")
    run = create_run(compose_recipe([*TINY, *overrides]), tmp_path)
    setup, recorder = setup_training(run), Recorder()
    _fit(build_trainer(run, setup, callbacks=[recorder]), setup, run)
    assert recorder.calls == [*EPOCH, *EPOCH]
    assert recorder.steps == [0, 1, 2, 3, 4, 5]
    expected_rates = [setup.module.compute_learning_rates(step)["head"] for step in range(6)]
    assert recorder.learning_rates == expected_rates
    assert len(set(expected_rates)) == 6
    assert torch.load(run.last_checkpoint, weights_only=True)["global_step"] == 6


def test_a_training_ends_after_the_batch_in_which_a_callback_stops_it(tmp_path: Path) -> None:
    class Stopper(Recorder):
        def on_batch_end(self, trainer: pl.Trainer, *arguments: Any) -> None:
            super().on_batch_end(trainer, *arguments)
            trainer.should_stop = len(self.steps) == 1

    silence_lightning()
    run = create_run(compose_recipe([*TINY, "strategy=fixed", "trainer.accumulate_grad_batches=2"]), tmp_path)
    setup, stopper = setup_training(run), Stopper()
    _fit(build_trainer(run, setup, callbacks=[stopper]), setup, run)
    assert stopper.calls[: len(STEPS) + 1] == ["epoch", *STEPS]
    assert stopper.steps == [0]
