"""Measure throughput and memory of a recipe's training step by batch size."""

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
from thaw.system.process import get_available_memory, get_peak_memory, reset_peak_memory
from thaw.system.reporter import SILENT, Reporter
from thaw.training.dataloaders import EpochLoader
from thaw.training.module import ClassificationModule
from thaw.training.setup import TrainingSetup
from thaw.training.tuner.dry_run import fit_steps, restrict_to_phase, set_up_dry_run

WARMUP_STEPS, TIMED_STEPS = 3, 5  # the first steps allocate memory and choose kernels
MAX_MEMORY_FRACTION = 0.7  # of a CPU's available memory: with more, other programs would be swapped out
MIN_RELATIVE_SPEED = 0.98  # of the best; a smaller difference is measurement error


@dataclass(frozen=True)
class BatchSizeTrial:
    """A batch size that was measured. `peak_bytes` is that of the GPU's allocator, or of the whole process on a CPU."""

    batch_size: int
    images_per_s: float
    peak_bytes: int


@dataclass(frozen=True)
class BatchSizeResult:
    """`stop_reason` says why no larger batch was tried; `input_kind`, `images` or `features`, what a batch holds."""

    trials: tuple[BatchSizeTrial, ...]
    stop_reason: str
    phase_name: str
    input_kind: str

    @property
    def suggestion(self) -> int:
        """The largest batch that is at most 2 % slower than the fastest."""
        min_speed = MIN_RELATIVE_SPEED * max(trial.images_per_s for trial in self.trials)
        return max(trial.batch_size for trial in self.trials if trial.images_per_s >= min_speed)


def find_batch_size(
    recipe: Recipe, min_batch_size: int, max_batch_size: int, reporter: Reporter = SILENT
) -> BatchSizeResult:
    """Measure training steps with `min_batch_size`, twice that and so on up to `max_batch_size` images.

    A step is forward pass, backward pass and optimizer step on random images that are on the device already, or on
    features if the phase trains on those. The phase is the one of the plan that keeps most of the network's
    activations. Loading and augmentation are left out; learning rates are 0, so that no loss overflows.

    Raises:
        UserError: as training does; if the data set has fewer than `min_batch_size` training images, or the device
            cannot hold even that batch.
    """
    setup = set_up_dry_run(recipe, reporter)
    num_train_images = setup.components.data.samples.count_per_split()["train"]
    if num_train_images < min_batch_size:
        subject, got = f"--min-batch-size {min_batch_size}", f"{num_train_images} training images"
        raise UserError("too few images.", [Problem(subject, got, fix="--min-batch-size 2")])
    phase = min(setup.plan.phases, key=lambda candidate: candidate.num_frozen_stages)
    restrict_to_phase(setup.module, phase)
    setup.module.optimization.schedule = lambda *_: 0.0
    setup.module.optimization.accumulate_grad_batches = 1
    depth = setup.batch_source.decisions[phase.name].depth
    trials, stop_reason = _run_trials(setup, depth, min_batch_size, min(max_batch_size, num_train_images))
    if not trials:
        raise _build_memory_error(min_batch_size)
    limit = f"--max-batch-size {max_batch_size}"
    if num_train_images < max_batch_size:
        limit = f"there are {num_train_images} training images"
    return BatchSizeResult(tuple(trials), stop_reason or limit, phase.name, "features" if depth else "images")


def _build_memory_error(min_batch_size: int) -> UserError:
    fix = f"--min-batch-size {max(2, min_batch_size // 2)}"
    if min_batch_size == 2:
        fix = "a smaller dataset.image_size, or another backbone"
    problem = Problem(f"--min-batch-size {min_batch_size}", "out of memory", fix=fix)
    return UserError("the memory is too small.", [problem])


def _run_trials(
    setup: TrainingSetup, depth: int, min_batch_size: int, max_batch_size: int
) -> tuple[list[BatchSizeTrial], str]:
    """Measure each batch size. Returns the trials, and why they stopped before `max_batch_size`, or an empty text."""
    reset_peak_memory()
    baseline_bytes, free_bytes = get_peak_memory(), get_available_memory()
    trials: list[BatchSizeTrial] = []
    for batch_size in _iter_batch_sizes(min_batch_size, max_batch_size):
        needed_bytes = 2 * (trials[-1].peak_bytes - baseline_bytes) if trials else 0
        if setup.components.devices.accelerator == "cpu" and needed_bytes > MAX_MEMORY_FRACTION * free_bytes:
            needed_gib, free_gib = needed_bytes / 2**30, free_bytes / 2**30
            return trials, f"{batch_size} would take about {needed_gib:.1f} GiB of {free_gib:.1f} available"
        trial = _run_trial(setup, depth, batch_size)
        if trial is None:
            return trials, f"{batch_size} is out of memory"
        trials.append(trial)
    return trials, ""


def _iter_batch_sizes(batch_size: int, max_batch_size: int) -> Iterator[int]:
    while batch_size <= max_batch_size:
        yield batch_size
        batch_size *= 2


def _run_trial(setup: TrainingSetup, depth: int, batch_size: int) -> BatchSizeTrial | None:
    """Measure a batch size. Returns None if the memory is full, and frees it."""
    try:
        return _measure_batch_size(setup, depth, batch_size)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not is_oom_error(error):
            raise
    # After the except clause: the frames of the error would hold the memory that is to be freed.
    setup.module.zero_grad(set_to_none=True)
    garbage_collection_cuda()
    return None


def _measure_batch_size(setup: TrainingSetup, depth: int, batch_size: int) -> BatchSizeTrial:
    is_cuda = setup.components.devices.is_on_gpu and torch.cuda.is_available()
    reset_peak_memory()
    if is_cuda:
        torch.cuda.reset_peak_memory_stats()
    step_timer = _StepTimer()
    batches = _build_repeated_batch(setup, depth, batch_size)
    fit_steps(setup, EpochLoader(batches), WARMUP_STEPS + TIMED_STEPS, step_timer)
    peak_bytes = torch.cuda.max_memory_allocated() if is_cuda else get_peak_memory()
    step_seconds = median(step_timer.compute_step_seconds()[WARMUP_STEPS - 1 :])
    return BatchSizeTrial(batch_size, batch_size / step_seconds, peak_bytes)


def _build_repeated_batch(setup: TrainingSetup, depth: int, batch_size: int) -> _RepeatedBatch:
    device = setup.components.devices.get_device(0)
    generator, num_classes = torch.Generator().manual_seed(0), len(setup.components.data.samples.classes)
    inputs = torch.randint(256, (batch_size, *setup.module.image_shape), dtype=torch.uint8, generator=generator)
    if depth:
        inputs = torch.rand(batch_size, *_compute_feature_shape(setup.module, depth), generator=generator)
    labels = torch.randint(num_classes, (batch_size,), generator=generator)
    batch = Batch(inputs.to(device), labels.to(device), torch.arange(batch_size, device=device), {}, depth)
    batch_sampler = EpochBatchSampler(np.arange(batch_size * (WARMUP_STEPS + TIMED_STEPS)), batch_size, 0)
    return _RepeatedBatch(batch, batch_sampler)


def _compute_feature_shape(module: ClassificationModule, depth: int) -> tuple[int, ...]:
    """Compute the shape of the output of the first `depth` stages for one image."""
    network = module.network
    image = torch.zeros(1, *module.image_shape, device=next(network.parameters()).device)
    with evaluation_mode(network, memory_format_of(network)):
        ((_, features),) = iter_stage_outputs(network, image, [depth])
    return tuple(features.shape[1:])


@dataclass(frozen=True)
class _RepeatedBatch:
    """A loader that repeats one batch, as many times as `batch_sampler` has batches."""

    batch: Batch
    batch_sampler: EpochBatchSampler

    def __iter__(self) -> Iterator[Batch]:
        return iter([self.batch] * len(self.batch_sampler))


class _StepTimer(Callback):
    """Records when each step ended. On CUDA the GPU's clock does, so that no step waits for the one before."""

    def __init__(self) -> None:
        self.timestamps: list[Any] = []

    def on_batch_end(
        self, trainer: pl.Trainer, pl_module: ClassificationModule, batch: Batch, loss: torch.Tensor
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
        """Return the seconds between the ends of consecutive steps."""
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
