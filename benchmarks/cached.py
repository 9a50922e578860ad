"""Compare the speed of training on cached features with that of a plain loop.

    python -m benchmarks.cached                    50,000 vectors of 1,280 values, 36 classes, batches of 32
    python -m benchmarks.cached trainer.batch_size=128 trainer.epochs=7

Both train a linear head on the same random vectors, in memory, with the same fused AdamW. The plain loop does nothing
but the steps. The run of thaw also sets learning rates, checks losses, counts correct answers, measures gradients and
shows its progress; what it does between epochs is not counted. They take turns, epoch by epoch, in one process, so that
a machine that is slow for a while slows down both. The first epoch warms up and is not counted. The report shows
medians.
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn
from torch.nn import functional as F

from thaw.config.compose import compose_recipe
from thaw.features.cached_features import CachedFeatures
from thaw.runs.lifecycle import create_run
from thaw.training.dataloaders import EpochLoader
from thaw.training.setup import TrainingSetup, setup_training
from thaw.training.train import build_trainer, silence_lightning

VECTORS, WIDTH = 50_000, 1_280  # as wide as the features of EfficientNet-Lite0
RECIPE = ("strategy=fixed", "feature_cache=require", "dataset.image_size=32", "dataset.train=5", "trainer.epochs=6")


def main(overrides: list[str]) -> None:
    silence_lightning()
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(compose_recipe([*RECIPE, *overrides]), Path(folder))
        setup = setup_training(run)
        values, labels = replace_features(setup)
        turns = TakeTurns(run_plain_epochs(setup, values, labels))
        trainer = build_trainer(run, setup, callbacks=[turns])
        trainer.fit(setup.module, EpochLoader(setup.loaders.train))
    report(turns.seconds, len(setup.loaders.train))


def replace_features(setup: TrainingSetup) -> tuple[Tensor, Tensor]:
    """Replace the cached features and the train images by random vectors with random labels, and return them."""
    source, classes = setup.batch_source, len(setup.components.data.samples.classes)
    source.prepare_phase(setup.plan.phases[0])
    assert source.features is not None
    values = torch.randn(VECTORS, WIDTH, generator=torch.Generator().manual_seed(0))
    labels = np.random.default_rng(0).integers(0, classes, VECTORS)
    views = dataclasses.replace(source.features.views, rows=np.arange(VECTORS)[None])
    source.features = CachedFeatures(values, source.features.depth, views, labels, "in memory")
    setup.loaders.train.batch_sampler.positions = np.arange(VECTORS)
    setup.module.optimization.steps_per_epoch = len(setup.loaders.train)
    return values, torch.from_numpy(labels)


class TakeTurns(Callback):
    """Run an epoch of the plain loop after each epoch of the trainer. `seconds` are those of each epoch."""

    def __init__(self, plain_epochs: Iterator[float]) -> None:
        self.plain_epochs = plain_epochs
        self.seconds: dict[str, list[float]] = {"plain loop": [], "thaw": []}

    def on_train_batch_start(self, *_: Any) -> None:  # a batch is an epoch for Lightning
        self.start_time = time.perf_counter()

    def on_train_batch_end(self, *_: Any) -> None:
        self.seconds["thaw"].append(time.perf_counter() - self.start_time)
        self.seconds["plain loop"].append(next(self.plain_epochs))


def run_plain_epochs(setup: TrainingSetup, values: Tensor, labels: Tensor) -> Iterator[float]:
    """Train with a loop written by hand and yield the seconds of each epoch."""
    settings = setup.components.recipe.trainer
    head = nn.Linear(WIDTH, len(setup.components.data.samples.classes))
    optimizer = torch.optim.AdamW(head.parameters(), fused=True)
    for _ in range(settings.epochs):
        start = time.perf_counter()
        for rows in torch.randperm(VECTORS).split(settings.batch_size):
            optimizer.zero_grad()
            F.cross_entropy(head(values[rows]), labels[rows]).backward()
            optimizer.step()
        yield time.perf_counter() - start


def report(seconds: dict[str, list[float]], steps: int) -> None:
    """Print microseconds and steps a second of both loops, without the first epoch."""
    medians = {name: statistics.median(times[1:]) for name, times in seconds.items()}
    print("\nloop         us a step   steps a second   of the plain loop")
    for name, median in medians.items():
        share = medians["plain loop"] / median
        print(f"{name:<10} {median / steps * 1e6:>11.0f}   {steps / median:>14.0f}   {share:>17.2f}")


if __name__ == "__main__":
    main(sys.argv[1:])
