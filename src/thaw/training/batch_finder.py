"""Throughput and memory of a recipe's training step by batch size."""

from __future__ import annotations

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

from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Recipe
from thaw.data.batches import Batch, EpochBatches
from thaw.data.memory import available, forget_peak, resident_peak
from thaw.features.inference import at_rest, layout_of, outputs
from thaw.training.assembly import Assembly
from thaw.training.learner import Learner
from thaw.training.rehearsal import in_phase, rehearsed, trainer_for_steps

WARM_UP, TIMED = 3, 5  # steps; the first ones allocate, and choose kernels
MOST_MEMORY = 0.7  # of what a CPU has available: past it other programs would be pushed out
LEAST_SPEED = 0.98  # of the best; less is no measurement error


@dataclass(frozen=True)
class Trial:
    """`peak`: bytes, of the GPU's allocator, or of the whole process on a CPU."""

    batch_size: int
    images_per_s: float
    peak: int


@dataclass(frozen=True)
class Trials:
    """`ended`: why no larger batch was tried. `phase`: the name of the one that was measured. `inputs`: what a batch
    holds."""

    rows: tuple[Trial, ...]
    ended: str
    phase: str
    inputs: str

    @property
    def suggestion(self) -> int:
        """The largest batch that is at most 2 % slower than the fastest."""
        fastest = max(one.images_per_s for one in self.rows)
        return max(one.batch_size for one in self.rows if one.images_per_s >= LEAST_SPEED * fastest)


def batch_trials(recipe: Recipe, lowest: int, highest: int) -> Trials:
    """Forward, backward and optimizer step on random images that lie on the device, or features where the phase trains
    on these, in batches of `lowest`, twice that and so on up to `highest`, in the phase of the recipe's plan that keeps
    most of the network's activations. Without loading and augmentation; learning rates are 0, so that no loss leaves
    the numbers.

    Raises:
        UserFault: as training would; where the data set has fewer than `lowest` training images, or the device holds
            not even that batch.
    """
    parts = rehearsed(recipe)
    images = parts.samples.counts()["train"]
    if images < lowest:
        raise UserFault("too few images.", [Fault(f"lowest={lowest}", f"{images} training images", fix="lowest=2")])
    phase = min(parts.learner.plan.phases, key=lambda one: one.frontier)
    in_phase(parts.learner, phase)
    parts.learner.schedule = lambda *_: 0.0
    depth = parts.supply.decisions[phase.name].depth
    rows, ended = _rows(recipe, parts, depth, lowest, min(highest, images))
    if not rows:
        fix = "a smaller dataset.image_size, or another backbone" if lowest == 2 else f"lowest={max(2, lowest // 2)}"
        raise UserFault("the memory is too small.", [Fault(f"lowest={lowest}", "out of memory", fix=fix)])
    limit = f"there are {images} training images" if images < highest else f"highest={highest}"
    return Trials(tuple(rows), ended or limit, phase.name, "features" if depth else "images")


def _rows(recipe: Recipe, parts: Assembly, depth: int, lowest: int, highest: int) -> tuple[list[Trial], str]:
    forget_peak()
    before, free = resident_peak(), available()
    rows: list[Trial] = []
    for batch_size in _doubled(lowest, highest):
        needed = 2 * (rows[-1].peak - before) if rows else 0
        if parts.accelerator == "cpu" and needed > MOST_MEMORY * free:
            return rows, f"{batch_size} would take about {needed / 2**30:.1f} GiB of {free / 2**30:.1f} available"
        trial = _trial(recipe, parts, depth, batch_size)
        if trial is None:
            return rows, f"{batch_size} is out of memory"
        rows.append(trial)
    return rows, ""


def _doubled(lowest: int, highest: int) -> Iterator[int]:
    while lowest <= highest:
        yield lowest
        lowest *= 2


def _trial(recipe: Recipe, parts: Assembly, depth: int, batch_size: int) -> Trial | None:
    """None where the memory is full; everything is given back then."""
    try:
        return _measured(recipe, parts, depth, batch_size)
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not is_oom_error(error):
            raise
    # Behind the except, or the error's frames would hold what is to be given back.
    parts.learner.zero_grad(set_to_none=True)
    garbage_collection_cuda()
    return None


def _measured(recipe: Recipe, parts: Assembly, depth: int, batch_size: int) -> Trial:
    on_cuda = parts.accelerator == "gpu" and torch.cuda.is_available()
    forget_peak()
    if on_cuda:
        torch.cuda.reset_peak_memory_stats()
    moments = _Moments()
    trainer = trainer_for_steps(recipe, parts, WARM_UP + TIMED, 1, moments)
    trainer.fit(parts.learner, _resident(parts, depth, batch_size, trainer.strategy.root_device))
    peak = torch.cuda.max_memory_allocated() if on_cuda else resident_peak()
    return Trial(batch_size, batch_size / median(moments.seconds()[WARM_UP - 1 :]), peak)


def _resident(parts: Assembly, depth: int, batch_size: int, device: torch.device) -> _Same:
    generator, classes = torch.Generator().manual_seed(0), len(parts.samples.classes)
    images = torch.randint(256, (batch_size, *parts.learner.image_shape), dtype=torch.uint8, generator=generator)
    inputs = torch.rand(batch_size, *_features_of_one(parts.learner, depth), generator=generator) if depth else images
    labels = torch.randint(classes, (batch_size,), generator=generator)
    batch = Batch(inputs.to(device), labels.to(device), torch.arange(batch_size, device=device), {}, depth)
    order = EpochBatches(np.arange(batch_size * (WARM_UP + TIMED)), batch_size, 0)
    return _Same(batch, order)


def _features_of_one(learner: Learner, depth: int) -> tuple[int, ...]:
    """The shape of what the leading `depth` stages make of an image."""
    network = learner.network
    image = torch.zeros(1, *learner.image_shape, device=next(network.parameters()).device)
    with at_rest(network, layout_of(network), ""):
        ((_, values),) = outputs(network, image, [depth])
    return tuple(values.shape[1:])


@dataclass
class _Same:
    """One batch, as often as `order` has batches."""

    batch: Batch
    order: EpochBatches

    def __len__(self) -> int:
        return len(self.order)

    def __iter__(self) -> Iterator[Batch]:
        return iter([self.batch] * len(self.order))


class _Moments(Callback):
    """When each step ended: by the GPU's own clock where it is CUDA's, so that no step waits for the one before."""

    def __init__(self) -> None:
        self.moments: list[Any] = []

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if pl_module.device.type == "cuda":
            moment: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            moment.record()
        else:
            if pl_module.device.type == "mps":
                torch.mps.synchronize()
            moment = time.perf_counter()
        self.moments.append(moment)

    def seconds(self) -> list[float]:
        """From each step's end to the next one's."""
        pairs = list(zip(self.moments[:-1], self.moments[1:], strict=True))
        if isinstance(self.moments[0], float):
            return [end - start for start, end in pairs]
        torch.cuda.synchronize()
        return [start.elapsed_time(end) / 1000 for start, end in pairs]
