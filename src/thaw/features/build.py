"""One pass over the images: what the frozen stages give of each, written to disk."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from thaw.data.batches import Batch, Images, InOrder, loader
from thaw.data.changes import changed
from thaw.data.contents import ABOUT
from thaw.data.preprocessing import Preprocessing
from thaw.features.inference import DOUBLE, at_rest, outputs
from thaw.features.views import Views
from thaw.network.network import Network
from thaw.network.normalise import Normalise

VALUES = "values.bin"
BATCH = {"cpu": 16, "cuda": 256}  # on a CPU small ones stay in its caches


@dataclass(frozen=True)
class Machine:
    """Where a pass runs, at which precision (Lightning's name), and with how many processes that load batches."""

    device: torch.device
    precision: str
    workers: int


def compute(
    network: Network,
    preprocessing: Preprocessing,
    images: Images,
    views: Views,
    machine: Machine,
    layout: torch.memory_format,
    folders: Mapping[int, Path],
    about: Mapping[str, Any],
) -> None:
    """Fills `folders[depth]`, all in one pass, with the output of the leading `depth` stages: values.bin, row by row as
    `views` has them, and meta.json with shape, type, and `about`, of what it is."""
    depths, shapes = sorted(folders), dict[int, Tensor]()
    began = time.perf_counter()
    with ExitStack() as stack:
        files = {depth: stack.enter_context((folders[depth] / VALUES).open("wb")) for depth in depths}
        for inputs in _normalised(network, preprocessing, images, views, machine, layout, stack):
            for depth, values in outputs(network, inputs, depths):
                shapes[depth] = values
                files[depth].write(as_bytes(values))
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    for depth, values in shapes.items():
        kind = {"rows": views.row_count, "shape": list(values.shape[1:]), "dtype": str(values.dtype).split(".")[-1]}
        stage = list(network.stages)[depth - 1]
        record = {**about, "stage": stage, **kind, "seconds": round(time.perf_counter() - began, 3)}
        (folders[depth] / ABOUT).write_text(json.dumps(record, indent=2), encoding="utf-8")


def _normalised(
    network: Network,
    preprocessing: Preprocessing,
    images: Images,
    views: Views,
    machine: Machine,
    layout: torch.memory_format,
    stack: ExitStack,
) -> Iterator[Tensor]:
    """What the first stage takes, of every row of `views`; `network` is at rest on the device meanwhile."""
    stack.callback(network.to, next(network.parameters()).dtype)  # else an export in double would change it for good
    network.to(machine.device, torch.float64 if machine.precision == DOUBLE else None)
    normalise = Normalise(preprocessing).to(machine.device, next(network.parameters()).dtype)
    stack.enter_context(at_rest(network, layout, machine.precision))
    for batch in _shown(_batches(images, views, machine), views.row_count):
        pixels = batch.images.to(machine.device, non_blocking=True)
        drawn = {name: one.to(machine.device, non_blocking=True) for name, one in batch.drawn.items()}
        inputs = normalise(changed(pixels, drawn, images.size) if drawn else pixels)
        yield inputs.contiguous(memory_format=layout)


def _batches(images: Images, views: Views, machine: Machine) -> Iterator[Batch]:
    size, on_gpu = BATCH.get(machine.device.type, BATCH["cuda"]), machine.device.type == "cuda"
    for one in views.passes:
        order = InOrder(one.positions, size, epoch=one.epoch)
        workers = machine.workers if len(order) > machine.workers else 0
        yield from loader(replace(images, augmentation=one.augmentation, views="none"), order, workers, on_gpu)


def _shown(batches: Iterator[Batch], count: int) -> Iterator[Batch]:
    """With a bar that counts images, on a screen."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("computing features", total=count)
        for batch in batches:
            yield batch
            progress.advance(task, len(batch.labels))


def as_bytes(values: Tensor) -> bytes:
    return values.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
