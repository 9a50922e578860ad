"""Compare the throughput of a training run with that of a hand-tuned plain loop that does the same work.

    python -m benchmarks.finetune                      captcha characters, EfficientNet-Lite0, 5 epochs each
    python -m benchmarks.finetune trainer.batch_size=64 trainer.epochs=3

Both fine-tune the same network from the same weights on the same decoded images, with the same optimizer, schedule,
memory layout and allocator settings, and both validate and save after each epoch. They take turns, step by step, in one
process, so that a machine that is slow for a while slows down both. The first epoch warms up and is not counted.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.nn import functional as F

from thaw.config.compose import compose_recipe
from thaw.config.schema import Recipe
from thaw.runs.lifecycle import create_run
from thaw.strategy.plan import PartPlan
from thaw.training.dataloaders import EpochLoader
from thaw.training.module import ClassificationModule
from thaw.training.optimizers import parameter_groups
from thaw.training.setup import TrainingSetup, setup_training
from thaw.training.train import build_trainer, silence_lightning


def main(overrides: list[str]) -> None:
    recipe = compose_recipe(["trainer.epochs=5", *overrides])
    silence_lightning()
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(recipe, Path(folder))
        thaw_setup, plain_setup = setup_training(run), setup_training(run)
        callback = TakeTurns(run_plain_loop(plain_setup, recipe, Path(folder)))
        trainer = build_trainer(run, thaw_setup, callbacks=[callback])
        callback.start_clock()
        loaders = thaw_setup.loaders
        trainer.fit(thaw_setup.module, EpochLoader(loaders.train), EpochLoader(loaders.val))
    report(callback.epochs, thaw_setup.components.data.samples.count_per_split()["train"])


class TakeTurns(Callback):
    """Run a step of the plain loop after each step of the trainer, and time both.

    The time that is not spent in the plain loop counts for the trainer. `epochs` holds the seconds of each epoch:
    those of the trainer, then those of the plain loop.
    """

    def __init__(self, plain_loop: Iterator[None]) -> None:
        self.plain_loop, self.epochs = plain_loop, list[tuple[float, float]]()

    def start_clock(self) -> None:
        self.thaw_s, self.plain_s, self.last_time = 0.0, 0.0, time.perf_counter()

    def run_plain_step(self) -> None:
        start = time.perf_counter()
        next(self.plain_loop)
        end = time.perf_counter()
        self.thaw_s += start - self.last_time
        self.plain_s += end - start
        self.last_time = end

    def end_epoch(self) -> None:
        self.run_plain_step()
        self.epochs.append((self.thaw_s, self.plain_s))
        self.thaw_s = self.plain_s = 0.0

    def on_batch_end(self, *_: Any) -> None:
        self.run_plain_step()

    def on_evaluation_batch_end(self, *_: Any) -> None:
        self.run_plain_step()

    def on_train_epoch_start(self, *_: Any) -> None:
        if self.thaw_s:  # an epoch has ended and its checkpoints are written
            self.end_epoch()

    def on_train_end(self, *_: Any) -> None:
        self.end_epoch()


def run_plain_loop(setup: TrainingSetup, recipe: Recipe, folder: Path) -> Iterator[None]:
    """Train as a loop written by hand for this recipe and this machine.

    Pause after each step, each validation batch, and the checkpoints of each epoch.
    """
    module, loaders = setup.module, setup.loaders
    network = module.network
    betas = tuple(recipe.optimizer.arguments["betas"])
    optimizer = torch.optim.AdamW(build_parameter_groups(module), betas=betas, fused=True)
    epochs, get_factor = recipe.trainer.epochs, module.optimization.schedule
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: get_factor(step, epochs, ()))
    for epoch in range(epochs):
        loaders.train.batch_sampler.set_epoch(epoch)
        network.train()
        for images, labels, *_ in loaders.train:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(normalize(module, images)), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            yield
        network.eval()
        correct = 0
        for images, labels, *_ in loaders.val:
            with torch.no_grad():
                correct += int((network(normalize(module, images)).argmax(1) == labels).sum())
            yield
        torch.save(network.state_dict(), folder / "plain-best.pt")
        last = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "correct": correct}
        torch.save(last, folder / "plain-last.pt")
        yield


def normalize(module: ClassificationModule, images: Tensor) -> Tensor:
    return module.normalize(images).contiguous(memory_format=module.memory_format)


def build_parameter_groups(module: ClassificationModule) -> list[dict[str, Any]]:
    """Return the parameter groups of the recipe with the learning rates of its plan."""
    parts = {part.name: part for part in module.plan.get_phase(0).parts}
    return [_build_group(group, parts[group["part"]]) for group in parameter_groups(module.network, False)]


def _build_group(group: dict[str, Any], part: PartPlan) -> dict[str, Any]:
    weight_decay = part.weight_decay if group["decays"] else 0.0
    return {"params": group["params"], "lr": part.learning_rate, "weight_decay": weight_decay}


def report(epochs: list[tuple[float, float]], num_images: int) -> None:
    """Print the seconds of each epoch after the first, and the throughput of both loops."""
    counted_epochs = epochs[1:]
    print("\nepoch   thaw s   plain s   plain / thaw")
    for number, (thaw_s, plain_s) in enumerate(counted_epochs, start=2):
        print(f"{number:>5}   {thaw_s:>6.2f}   {plain_s:>7.2f}   {plain_s / thaw_s:>12.3f}")
    thaw_s, plain_s = (sum(column) for column in zip(*counted_epochs, strict=True))
    thaw_speed, plain_speed = (num_images * len(counted_epochs) / seconds for seconds in (thaw_s, plain_s))
    ratio = plain_s / thaw_s
    print(f"\nthaw {thaw_speed:.1f} images/s, plain loop {plain_speed:.1f} images/s: {ratio:.3f} of its throughput")


if __name__ == "__main__":
    main(sys.argv[1:])
