"""What the framework costs beside a hand-tuned plain loop of the same work.

    python -m benchmarks.finetune                      captcha characters, EfficientNet-Lite0, 5 epochs each
    python -m benchmarks.finetune trainer.batch_size=64 trainer.epochs=3

Both fine-tune the same network from the same weights on the same decoded images, with the same optimizer, schedule,
memory layout and allocator settings; both validate and save after each epoch. They take turns, step by step, in one
process, so that a machine which is slow for a while is slow for both. The first epoch warms up and is not counted.
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
from thaw.runs.run import create_run
from thaw.strategy.plan import PartPlan
from thaw.training.module import ClassificationModule
from thaw.training.optimizers import parameter_groups
from thaw.training.setup import TrainingSetup, setup_training
from thaw.training.train import build_trainer, silence_lightning


def main(overrides: list[str]) -> None:
    recipe = compose_recipe(["trainer.epochs=5", *overrides])
    silence_lightning()
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(recipe, Path(folder))
        ours, plain = setup_training(run), setup_training(run)
        turns = Turns(plain_loop(plain, recipe, Path(folder)))
        trainer = build_trainer(run, ours, callbacks=[turns])
        turns.begin()
        trainer.fit(ours.module, ours.loaders.train, ours.loaders.val)
    report(turns.epochs, ours.components.data.samples.count_per_split()["train"])


class Turns(Callback):
    """Before each step of ours, one of the plain loop. What is not the plain loop's time is ours."""

    def __init__(self, plain: Iterator[None]) -> None:
        self.plain, self.epochs = plain, list[tuple[float, float]]()

    def begin(self) -> None:
        self.ours, self.theirs, self.mark = 0.0, 0.0, time.perf_counter()

    def turn(self) -> None:
        started = time.perf_counter()
        next(self.plain)
        ended = time.perf_counter()
        self.ours, self.theirs, self.mark = self.ours + started - self.mark, self.theirs + ended - started, ended

    def on_train_batch_start(self, *_: Any) -> None:
        self.turn()

    def on_validation_batch_start(self, *_: Any) -> None:
        self.turn()

    def on_train_epoch_start(self, *_: Any) -> None:
        if self.ours:  # an epoch lies behind us, its checkpoints written
            self.turn()
            self.epochs.append((self.ours, self.theirs))
            self.ours = self.theirs = 0.0

    def on_train_end(self, *_: Any) -> None:
        self.turn()
        self.epochs.append((self.ours, self.theirs))


def plain_loop(parts: TrainingSetup, recipe: Recipe, folder: Path) -> Iterator[None]:
    """A loop as one would write it by hand for this recipe, knowing all that helps on this machine. Pauses after each
    step, each validation batch, and each epoch's saving."""
    learner, feed = parts.module, parts.loaders
    network = learner.network
    optimizer = torch.optim.AdamW(groups(learner), betas=tuple(recipe.optimizer.arguments["betas"]), fused=True)
    epochs, factor = recipe.trainer.epochs, learner.optimization.schedule
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: factor(step, epochs, ()))

    def batch_of(images: Tensor) -> Tensor:
        return learner.normalize(images).contiguous(memory_format=learner.memory_format)

    for epoch in range(epochs):
        feed.train.batch_sampler.set_epoch(epoch)
        network.train()
        for images, labels, *_ in feed.train:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(batch_of(images)), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
            yield
        network.eval()
        right = 0
        for images, labels, *_ in feed.val:
            with torch.no_grad():
                right += int((network(batch_of(images)).argmax(1) == labels).sum())
            yield
        torch.save(network.state_dict(), folder / "plain-best.pt")
        last = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "right": right}
        torch.save(last, folder / "plain-last.pt")
        yield


def groups(learner: ClassificationModule) -> list[dict[str, Any]]:
    """The recipe's parameter groups, at the rates of its plan."""
    planned = {part.name: part for part in learner.plan.get_phase(0).parts}
    return [_group(group, planned[group["part"]]) for group in parameter_groups(learner.network, False)]


def _group(group: dict[str, Any], part: PartPlan) -> dict[str, Any]:
    decay = part.weight_decay if group["decays"] else 0.0
    return {"params": group["params"], "lr": part.learning_rate, "weight_decay": decay}


def report(epochs: list[tuple[float, float]], images: int) -> None:
    counted = epochs[1:]
    print("\nepoch   thaw s   plain s   plain / thaw")
    for number, (ours, plain) in enumerate(counted, start=2):
        print(f"{number:>5}   {ours:>6.2f}   {plain:>7.2f}   {plain / ours:>12.3f}")
    ours, plain = (sum(column) for column in zip(*counted, strict=True))
    speeds = [images * len(counted) / seconds for seconds in (ours, plain)]
    print(f"\nthaw {speeds[0]:.1f} images/s, plain loop {speeds[1]:.1f} images/s: {plain / ours:.3f} of its throughput")


if __name__ == "__main__":
    main(sys.argv[1:])
