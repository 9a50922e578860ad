"""Throughput and memory of a recipe's training step by batch size."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.utilities.memory import garbage_collection_cuda, is_oom_error

from thaw.config.errors import Problem, UserError
from thaw.config.schema import Recipe
from thaw.data.batches import Batch, EpochBatchSampler
from thaw.features.forward import evaluation_mode, iter_stage_outputs, memory_format_of
from thaw.system.memory import get_available_memory, get_peak_memory, reset_peak_memory
from thaw.training.module import ClassificationModule
from thaw.training.setup import TrainingSetup
from thaw.training.tuner.dry_run import build_dry_run_trainer, dry_run, restrict_to_phase

WARMUP_STEPS, TIMED_STEPS = 3, 5  # steps; the first ones allocate, and choose kernels
MAX_MEMORY_FRACTION = 0.7  # of what a CPU has available: past it other programs would be pushed out
MIN_RELATIVE_SPEED = 0.98  # of the best; less is no measurement error


@dataclass(frozen=True)
class BatchSizeTrial:
    """`peak`: bytes, of the GPU's allocator, or of the whole process on a CPU."""

    batch_size: int
    images_per_s: float
    peak_bytes: int


@dataclass(frozen=True)
class BatchSizeResult:
    """`ended`: why no larger batch was tried. `phase`: the name of the one that was measured. `inputs`: what a batch
    holds."""

    trials: tuple[BatchSizeTrial, ...]
    stop_reason: str
    phase_name: str
    input_kind: str

    @property
    def suggestion(self) -> int:
        """The largest batch that is at most 2 % slower than the fastest."""
        max_images_per_s = max(trial.images_per_s for trial in self.trials)
        return max(
            trial.batch_size for trial in self.trials if trial.images_per_s >= MIN_RELATIVE_SPEED * max_images_per_s
        )


def find_batch_size(recipe: Recipe, min_batch_size: int, max_batch_size: int) -> BatchSizeResult:
    """Forward, backward and optimizer step on random images that lie on the device, or features where the phase trains
    on these, in batches of `lowest`, twice that and so on up to `highest`, in the phase of the recipe's plan that keeps
    most of the network's activations. Without loading and augmentation; learning rates are 0, so that no loss leaves
    the numbers.

    Raises:
        UserFault: as training would; where the data set has fewer than `lowest` training images, or the device holds
            not even that batch.
    """
    setup = dry_run(recipe)
    num_train_images = setup.samples.count_per_split()["train"]
    if num_train_images < min_batch_size:
        got = f"{num_train_images} training images"
        raise UserError("too few images.", [Problem(f"min_batch_size={min_batch_size}", got, fix="min_batch_size=2")])
    phase = min(setup.module.plan.phases, key=lambda candidate: candidate.num_frozen_stages)
    restrict_to_phase(setup.module, phase)
    setup.module.schedule = lambda *_: 0.0
    depth = setup.batch_source.decisions[phase.name].depth
    trials, stop_reason = _run_trials(recipe, setup, depth, min_batch_size, min(max_batch_size, num_train_images))
    if not trials:
        fix = (
            "a smaller dataset.image_size, or another backbone"
            if min_batch_size == 2
            else f"min_batch_size={max(2, min_batch_size // 2)}"
        )
        problem = Problem(f"min_batch_size={min_batch_size}", "out of memory", fix=fix)
        raise UserError("the memory is too small.", [problem])
    limit_reason = (
        f"there are {num_train_images} training images"
        if num_train_images < max_batch_size
        else f"highest={max_batch_size}"
    )
    return BatchSizeResult(tuple(trials), stop_reason or limit_reason, phase.name, "features" if depth else "images")


def _run_trials(
    recipe: Recipe, setup: TrainingSetup, depth: int, min_batch_size: int, max_batch_size: int
) -> tuple[list[BatchSizeTrial], str]:
    reset_peak_memory()
    baseline_bytes, free_bytes = get_peak_memory(), get_available_memory()
    trials: list[BatchSizeTrial] = []
    for batch_size in _iter_batch_sizes(min_batch_size, max_batch_size):
        needed_bytes = 2 * (trials[-1].peak_bytes - baseline_bytes) if trials else 0
        if setup.accelerator == "cpu" and needed_bytes > MAX_MEMORY_FRACTION * free_bytes:
            return (
                trials,
                f"{batch_size} would take about {needed_bytes / 2**30:.1f} GiB of {free_bytes / 2**30:.1f} available",
            )
        trial = _run_trial(recipe, setup, depth, batch_size)
        if trial is None:
            return trials, f"{batch_size} is out of memory"
        trials.append(trial)
    return trials, ""


def _iter_batch_sizes(batch_size: int, max_batch_size: int) -> Iterator[int]:
    while batch_size <= max_batch_size:
        yield batch_size
        batch_size *= 2


def _run_trial(recipe: Recipe, setup: TrainingSetup, depth: int, batch_size: int) -> BatchSizeTrial | None:
    """None where the memory is full; everything is given back then."""
    try:
        return _measure_batch_size(recipe, setup, depth, batch_size)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not is_oom_error(error):
            raise
    # Behind the except, or the error's frames would hold what is to be given back.
    setup.module.zero_grad(set_to_none=True)
    garbage_collection_cuda()
    return None


def _measure_batch_size(recipe: Recipe, setup: TrainingSetup, depth: int, batch_size: int) -> BatchSizeTrial:
    is_cuda = setup.accelerator == "gpu" and torch.cuda.is_available()
    reset_peak_memory()
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    step_timer = _StepTimer()
    trainer = build_dry_run_trainer(recipe, setup, WARMUP_STEPS + TIMED_STEPS, 1, step_timer)
    trainer.fit(setup.module, _build_repeated_batch(setup, depth, batch_size, trainer.strategy.root_device))
    peak_bytes = torch.cuda.max_memory_allocated() if is_cuda else get_peak_memory()
    return BatchSizeTrial(
        batch_size, batch_size / median(step_timer.compute_step_seconds()[WARMUP_STEPS - 1 :]), peak_bytes
    )


def _build_repeated_batch(setup: TrainingSetup, depth: int, batch_size: int, device: torch.device) -> _RepeatedBatch:
    generator, num_classes = torch.Generator().manual_seed(0), len(setup.samples.classes)
    images = torch.randint(256, (batch_size, *setup.module.image_shape), dtype=torch.uint8, generator=generator)
    inputs = (
        torch.rand(batch_size, *_compute_feature_shape(setup.module, depth), generator=generator) if depth else images
    )
    labels = torch.randint(num_classes, (batch_size,), generator=generator)
    batch = Batch(inputs.to(device), labels.to(device), torch.arange(batch_size, device=device), {}, depth)
    batch_sampler = EpochBatchSampler(np.arange(batch_size * (WARMUP_STEPS + TIMED_STEPS)), batch_size, 0)
    return _RepeatedBatch(batch, batch_sampler)


def _compute_feature_shape(module: ClassificationModule, depth: int) -> tuple[int, ...]:
    """The shape of what the leading `depth` stages make of an image."""
    network = module.network
    image = torch.zeros(1, *module.image_shape, device=next(network.parameters()).device)
    with evaluation_mode(network, memory_format_of(network), ""):
        ((_, features),) = iter_stage_outputs(network, image, [depth])
    return tuple(features.shape[1:])


@dataclass
class _RepeatedBatch:
    """One batch, as often as `order` has batches."""

    batch: Batch
    batch_sampler: EpochBatchSampler

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def __iter__(self) -> Iterator[Batch]:
        return iter([self.batch] * len(self.batch_sampler))


class _StepTimer(Callback):
    """When each step ended: by the GPU's own clock where it is CUDA's, so that no step waits for the one before."""

    def __init__(self) -> None:
        self.timestamps: list[Any] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            timestamp: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            timestamp.record()
        else:
            if pl_module.device.type == "mps":
                torch.mps.synchronize()
            timestamp = time.perf_counter()
        self.timestamps.append(timestamp)

    def compute_step_seconds(self) -> list[float]:
        """From each step's end to the next one's."""
        pairs = list(zip(self.timestamps[:-1], self.timestamps[1:], strict=True))
        if isinstance(self.timestamps[0], float):
            return [end - start for start, end in pairs]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in pairs]


def scale_learning_rate(recipe: Recipe, batch_size: int) -> tuple[float, str] | None:
    """Return the learning rate for batches of another size than the recipe's, and the rule of thumb that gives it; None
    if no rule for the optimizer is known.

    SGD: Goyal et al. 2017, "Accurate, large minibatch SGD"; Adam and RMSprop: Malladi et al. 2022, "On the SDEs and
    scaling rules for adaptive gradient algorithms".
    """
    factor, name = batch_size / recipe.trainer.batch_size, recipe.optimizer.name.lower().rpartition(".")[2]
    if "sgd" in name:
        return recipe.optimizer.learning_rate * factor, "linear for SGD, Goyal et al. 2017"
    if "adam" in name or "rmsprop" in name:
        rate = recipe.optimizer.learning_rate * math.sqrt(factor)
        return rate, "square root for Adam, Malladi et al. 2022"
    return None
