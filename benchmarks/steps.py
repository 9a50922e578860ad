"""Compare the cost of a training step under each strategy with that of full fine-tuning.

    python -m benchmarks.steps                                  captcha characters, EfficientNet-Lite0
    python -m benchmarks.steps dataset.image_size=224 trainer.batch_size=16

Every strategy trains its own network on the same batches, as in the last phase of its plan. They take turns step by
step in one process, so that a machine that is slow for a while slows down all of them. The first steps are not counted.
For the rows "cached", the features of the frozen stages are computed before, once, in the time of one epoch of them.
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
from thaw.runs.lifecycle import create_run
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
WARM_UP_STEPS, STEPS = 3, 15


def main(overrides: list[str]) -> None:
    silence_lightning()
    with tempfile.TemporaryDirectory() as folder:
        loops = {
            name: run_steps(prepare_training([*overrides, *strategy], Path(folder) / name))
            for name, strategy in STRATEGIES.items()
        }
        seconds: dict[str, list[float]] = {name: [] for name in STRATEGIES}
        for number in range(WARM_UP_STEPS + STEPS):
            for name, loop in loops.items():
                start = time.perf_counter()
                next(loop)
                if number >= WARM_UP_STEPS:
                    seconds[name].append(time.perf_counter() - start)
    report({name: statistics.median(times) for name, times in seconds.items()})


def prepare_training(overrides: list[str], folder: Path) -> TrainingSetup:
    """Set up a training in the last phase of its plan."""
    setup = setup_training(create_run(compose_recipe(overrides), folder))
    setup.batch_source.prepare_phase(setup.module.plan.phases[-1])
    return setup


def run_steps(setup: TrainingSetup) -> Iterator[None]:
    """Load a batch, run forward and backward and the optimizer step, and pause after each step."""
    module, phase = setup.module.to(choose_device()), setup.module.plan.phases[-1]
    optimizer = module.configure_optimizers()
    apply_phase(module.network, phase)
    set_weight_decay(optimizer.param_groups, phase)
    learning_rates = {part.name: part.learning_rate for part in phase.parts}
    for group in optimizer.param_groups:
        group["lr"] = learning_rates[group["part"]] * 0.01  # the learning rate does not change the cost of a step
    for batch in cycle(setup.loaders.train):
        optimizer.zero_grad()
        compute_loss(module, Batch(*batch)).backward()
        optimizer.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        yield


def compute_loss(module: ClassificationModule, batch: Batch) -> torch.Tensor:
    device = choose_device()
    device_batch = batch._replace(images=batch.images.to(device), labels=batch.labels.to(device))
    return torch.nn.functional.cross_entropy(module.compute_logits(device_batch), device_batch.labels)


def choose_device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def report(medians: dict[str, float]) -> None:
    print("\nstrategy          ms a step   faster than finetune")
    for name, seconds in medians.items():
        print(f"{name:<17} {seconds * 1000:>9.1f}   {medians['finetune'] / seconds:>18.2f} x")


if __name__ == "__main__":
    main(sys.argv[1:])
