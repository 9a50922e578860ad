"""What the framework costs beside a hand-tuned plain loop of the same work.

    python -m benchmarks.finetune                      captcha characters, EfficientNet-Lite0, 5 epochs each
    python -m benchmarks.finetune trainer.batch_size=64 trainer.epochs=3

Both fine-tune the same network from the same weights on the same decoded images, with the same optimizer, schedule,
memory layout and allocator settings; both validate and save after each epoch. They take turns, epoch by epoch, in one
process, so that a machine which is slow for a while is slow for both. The first pair warms up and is not counted.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.nn import functional as F

from thaw.config.command import recipe_for
from thaw.config.schema import Recipe
from thaw.strategy.plan import PartPlan
from thaw.training.assembly import Assembly, assembled
from thaw.training.learner import Learner
from thaw.training.objective import parameter_groups
from thaw.training.run import new_run
from thaw.training.train import quieten, trainer_for


def main(overrides: list[str]) -> None:
    recipe = recipe_for(["trainer.epochs=6", *overrides])
    quieten()
    with tempfile.TemporaryDirectory() as folder:
        run = new_run(recipe, Path(folder))
        ours, plain = assembled(run), assembled(run)
        turns = Turns(plain_epoch(plain, recipe, Path(folder)))
        trainer = trainer_for(run, ours, [turns])
        turns.begin()
        trainer.fit(ours.learner, ours.feed.train, ours.feed.val)
    report(turns, len(ours.feed.train.batch_sampler.positions))


class Turns(Callback):
    """After each epoch of ours, one of the plain loop; notes the seconds of both."""

    def __init__(self, plain: Callable[[int], None]) -> None:
        self.plain, self.seconds = plain, list[tuple[float, float]]()

    def begin(self) -> None:
        self.started = time.perf_counter()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if trainer.current_epoch > 0:  # what ours did behind its last step, checkpoints and all, is in its time
            between = time.perf_counter()
            self.plain(trainer.current_epoch - 1)
            ended = time.perf_counter()
            self.seconds.append((between - self.started, ended - between))
            self.started = ended


def plain_epoch(parts: Assembly, recipe: Recipe, folder: Path) -> Callable[[int], None]:
    """A loop as one would write it by hand for this recipe, knowing all that helps on this machine."""
    learner, feed = parts.learner, parts.feed
    network = learner.network
    optimizer = torch.optim.AdamW(groups(learner), betas=tuple(recipe.optimizer.betas), fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, learner.factor)

    def batch_of(images: Tensor) -> Tensor:
        return ((images.float() - learner.mean) / learner.deviation).contiguous(memory_format=learner.memory_format)

    def epoch(number: int) -> None:
        feed.train.batch_sampler.set_epoch(number)
        network.train()
        for images, labels, _ in feed.train:
            optimizer.zero_grad()
            loss = F.cross_entropy(network(batch_of(images)), labels)
            loss.backward()
            optimizer.step()
            schedule.step()
        network.eval()
        with torch.no_grad():
            right = sum(int((network(batch_of(images)).argmax(1) == labels).sum()) for images, labels, _ in feed.val)
        torch.save(network.state_dict(), folder / "plain-best.pt")
        torch.save(
            {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "right": right}, folder / "plain.pt"
        )

    return epoch


def groups(learner: Learner) -> list[dict[str, Any]]:
    """The recipe's parameter groups, at the rates of its plan."""
    planned = {part.name: part for part in learner.plan.at(0).parts}
    return [_group(group, planned[group["part"]]) for group in parameter_groups(learner.network, False)]


def _group(group: dict[str, Any], part: PartPlan) -> dict[str, Any]:
    decay = part.weight_decay if group["decays"] else 0.0
    return {"params": group["params"], "lr": part.learning_rate, "weight_decay": decay}


def report(turns: Turns, images: int) -> None:
    counted = turns.seconds[1:]
    print("\nepoch   thaw s   plain s   plain / thaw")
    for number, (ours, plain) in enumerate(counted, start=2):
        print(f"{number:>5}   {ours:>6.2f}   {plain:>7.2f}   {plain / ours:>12.3f}")
    ratio = statistics.median(plain / ours for ours, plain in counted)
    speeds = [images / statistics.median(column) for column in zip(*counted, strict=True)]
    print(f"\nmedian: thaw {speeds[0]:.1f} images/s, plain loop {speeds[1]:.1f} images/s, throughput ratio {ratio:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
