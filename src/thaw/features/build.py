"""One pass over the images: what the frozen stages give of each, written to disk."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
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
from thaw.features.views import Pass, Views
from thaw.network.network import Network
from thaw.network.normalise import Normalise

VALUES = "values.bin"
BATCH = {"cpu": 16, "cuda": 256}  # on a CPU small ones stay in its caches


@dataclass(frozen=True)
class Share:
    """Part `index` of `count` of a pass over the images, each part a file until they are joined."""

    index: int = 0
    count: int = 1

    def file(self, folder: Path) -> Path:
        return folder / (f"{VALUES}.{self.index}" if self.index else VALUES)

    def of(self, passes: Sequence[Pass], size: int) -> Iterator[Pass]:
        """Whole batches of `size`, the same as one process has, one after another; the first part has one at least."""
        total = sum(_batch_count(one, size) for one in passes)
        start, end = (-(-total * index // self.count) for index in (self.index, self.index + 1))
        for one in passes:
            yield replace(one, positions=one.positions[max(0, start) * size : max(0, end) * size])
            start, end = start - _batch_count(one, size), end - _batch_count(one, size)


def _batch_count(one: Pass, size: int) -> int:
    return -(-len(one.positions) // size)


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
    share: Share,
) -> None:
    """Fills `folders[depth]`, all in one pass, with the output of the leading `depth` stages: values.bin, row by row as
    `views` has them, and meta.json with shape, type, and `about`, of what it is. Of a pass in several shares a file for
    each, to be `joined`, and the first writes meta.json."""
    depths, shapes = sorted(folders), dict[int, Tensor]()
    began = time.perf_counter()
    with ExitStack() as stack:
        files = {depth: stack.enter_context(share.file(folders[depth]).open("wb")) for depth in depths}
        passes = list(share.of(views.passes, _batch_size(machine)))
        for inputs in _normalised(network, preprocessing, images, passes, machine, layout, stack):
            for depth, values in outputs(network, inputs, depths):
                shapes[depth] = values
                files[depth].write(as_bytes(values))
        for file in files.values():
            file.flush()
            os.fsync(file.fileno())
    for depth, values in shapes.items() if share.index == 0 else ():
        kind = {"rows": views.row_count, "shape": list(values.shape[1:]), "dtype": str(values.dtype).split(".")[-1]}
        stage = list(network.stages)[depth - 1]
        record = {**about, "stage": stage, **kind, "seconds": round(time.perf_counter() - began, 3)}
        (folders[depth] / ABOUT).write_text(json.dumps(record, indent=2), encoding="utf-8")


def joined(folder: Path, count: int) -> None:
    """Makes one values.bin of the `count` shares in `folder`."""
    first, *others = (Share(index, count).file(folder) for index in range(count))
    if not others:
        return
    with first.open("ab") as stream:
        for file in others:
            with file.open("rb") as part:
                shutil.copyfileobj(part, stream, 2**24)
            file.unlink()
        stream.flush()
        os.fsync(stream.fileno())


def _normalised(
    network: Network,
    preprocessing: Preprocessing,
    images: Images,
    passes: Sequence[Pass],
    machine: Machine,
    layout: torch.memory_format,
    stack: ExitStack,
) -> Iterator[Tensor]:
    """What the first stage takes, of every image of `passes`; `network` is at rest on the device meanwhile."""
    stack.callback(network.to, next(network.parameters()).dtype)  # else an export in double would change it for good
    network.to(machine.device, torch.float64 if machine.precision == DOUBLE else None)
    normalise = Normalise(preprocessing).to(machine.device, next(network.parameters()).dtype)
    stack.enter_context(at_rest(network, layout, machine.precision))
    for batch in _shown(_batches(images, passes, machine), sum(len(one.positions) for one in passes)):
        pixels = batch.images.to(machine.device, non_blocking=True)
        drawn = {name: one.to(machine.device, non_blocking=True) for name, one in batch.drawn.items()}
        inputs = normalise(changed(pixels, drawn, images.size) if drawn else pixels)
        yield inputs.contiguous(memory_format=layout)


def _batch_size(machine: Machine) -> int:
    return BATCH.get(machine.device.type, BATCH["cuda"])


def _batches(images: Images, passes: Sequence[Pass], machine: Machine) -> Iterator[Batch]:
    on_gpu = machine.device.type == "cuda"
    for one in passes:
        order = InOrder(one.positions, _batch_size(machine), epoch=one.epoch)
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
