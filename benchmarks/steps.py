"""What a training step costs under each strategy, beside full fine-tuning.

    python -m benchmarks.steps                                  captcha characters, EfficientNet-Lite0
    python -m benchmarks.steps dataset.image_size=224 trainer.batch_size=16

Every strategy trains a network of its own on the same batches, as the last phase of its plan says; they take turns step
by step in one process, so that a machine which is slow for a while is slow for all. The first steps are not counted.
Where it says cached, the frozen stages' features were computed before, which takes once what an epoch of them takes.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import torch

from thaw.config.compose import compose_recipe
from thaw.data.batches import Batch
from thaw.runs.run import create_run
from thaw.training.freezing import apply_phase
from thaw.training.module import ClassificationModule
from thaw.training.optimizers import set_weight_decay
from thaw.training.setup import TrainingSetup, setup_training
from thaw.training.train import silence_lightning

STRATEGIES = {
    "finetune": ("strategy=finetune", "feature_cache=off"),
    "first_layers": ("strategy=first_layers", "feature_cache=off"),
    "norm_only": ("strategy=norm_only", "feature_cache=off"),
    "bias_only": ("strategy=bias_only", "feature_cache=off"),
    "partial": ("strategy=partial", "feature_cache=off"),
    "partial, cached": ("strategy=partial", "feature_cache=require"),
    "fixed": ("strategy=fixed", "feature_cache=off"),
    "fixed, cached": ("strategy=fixed", "feature_cache=require"),
}
WARM_UP, STEPS = 3, 15


def main(overrides: list[str]) -> None:
    silence_lightning()
    with tempfile.TemporaryDirectory() as folder:
        strategies = {
            name: steps(prepared([*overrides, *chosen], Path(folder) / name)) for name, chosen in STRATEGIES.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in STRATEGIES}
        for number in range(WARM_UP + STEPS):
            for name, one in strategies.items():
                started = time.perf_counter()
                next(one)
                if number >= WARM_UP:
                    seconds[name].append(time.perf_counter() - started)
    report({name: statistics.median(times) for name, times in seconds.items()})


def prepared(overrides: list[str], folder: Path) -> TrainingSetup:
    parts = setup_training(create_run(compose_recipe(overrides), folder))
    parts.batch_source.prepare_phase(parts.module.plan.phases[-1])
    return parts


def steps(parts: TrainingSetup) -> Iterator[None]:
    """Forward, backward and optimizer step on one batch after another, loading included. Pauses after each."""
    learner, phase = parts.module.to(device()), parts.module.plan.phases[-1]
    optimizer = learner.configure_optimizers()
    apply_phase(learner.network, phase)
    set_weight_decay(optimizer.param_groups, phase)
    rates = {part.name: part.learning_rate for part in phase.parts}
    for group in optimizer.param_groups:
        group["lr"] = rates[group["part"]] * 0.01  # a step costs the same however far it goes
    for batch in cycle(parts.loaders.train):
        optimizer.zero_grad()
        loss(learner, Batch(*batch)).backward()
        optimizer.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        yield


def loss(learner: ClassificationModule, batch: Batch) -> torch.Tensor:
    here = batch._replace(images=batch.images.to(device()), labels=batch.labels.to(device()))
    return torch.nn.functional.cross_entropy(learner.compute_logits(here), here.labels)


def device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def report(medians: dict[str, float]) -> None:
    print("\nstrategy          ms a step   faster than finetune")
    for name, seconds in medians.items():
        print(f"{name:<17} {seconds * 1000:>9.1f}   {medians['finetune'] / seconds:>18.2f} x")


if __name__ == "__main__":
    main(sys.argv[1:])
