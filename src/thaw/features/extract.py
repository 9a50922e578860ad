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

from thaw.data.batches import Batch, ImageDataset, SequentialBatchSampler, build_dataloader
from thaw.data.preprocessing import Preprocessing
from thaw.data.transforms import apply_augmentation
from thaw.features.forward import DOUBLE_PRECISION, evaluation_mode, iter_stage_outputs
from thaw.features.views import ViewPass, Views
from thaw.models.network import Network, Normalize
from thaw.system.cache_entries import METADATA_FILE

VALUES_FILE = "values.bin"
BATCH_SIZES = {"cpu": 16, "cuda": 256}  # on a CPU small ones stay in its caches


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count` of a pass over the images, each part a file until they are joined."""

    index: int = 0
    num_shards: int = 1

    def get_path(self, folder: Path) -> Path:
        return folder / (f"{VALUES_FILE}.{self.index}" if self.index else VALUES_FILE)

    def select_passes(self, passes: Sequence[ViewPass], batch_size: int) -> Iterator[ViewPass]:
        """Whole batches of `size`, the same as one process has, one after another; the first part has one at least."""
        num_batches = sum(_count_batches(view_pass, batch_size) for view_pass in passes)
        start, end = (-(-num_batches * index // self.num_shards) for index in (self.index, self.index + 1))
        for view_pass in passes:
            yield replace(
                view_pass, positions=view_pass.positions[max(0, start) * batch_size : max(0, end) * batch_size]
            )
            start, end = start - _count_batches(view_pass, batch_size), end - _count_batches(view_pass, batch_size)


def _count_batches(view_pass: ViewPass, batch_size: int) -> int:
    return -(-len(view_pass.positions) // batch_size)


@dataclass(frozen=True)
class ExecutionConfig:
    """Where a pass runs, at which precision (Lightning's name), and with how many processes that load batches."""

    device: torch.device
    precision: str
    num_workers: int


def extract_features(
    network: Network,
    preprocessing: Preprocessing,
    images: ImageDataset,
    views: Views,
    execution: ExecutionConfig,
    memory_format: torch.memory_format,
    folders: Mapping[int, Path],
    metadata: Mapping[str, Any],
    shard: Shard,
) -> None:
    """Fills `folders[depth]`, all in one pass, with the output of the leading `depth` stages: values.bin, row by row as
    `views` has them, and meta.json with shape, type, and `about`, of what it is. Of a pass in several shares a file for
    each, to be `joined`, and the first writes meta.json."""
    depths, last_outputs = sorted(folders), dict[int, Tensor]()
    start_time = time.perf_counter()
    with ExitStack() as stack:
        streams = {depth: stack.enter_context(shard.get_path(folders[depth]).open("wb")) for depth in depths}
        passes = list(shard.select_passes(views.passes, _get_batch_size(execution)))
        for inputs in _iter_normalized(network, preprocessing, images, passes, execution, memory_format, stack):
            for depth, values in iter_stage_outputs(network, inputs, depths):
                last_outputs[depth] = values
                streams[depth].write(to_bytes(values))
        for stream in streams.values():
            stream.flush()
            os.fsync(stream.fileno())
    for depth, values in last_outputs.items() if shard.index == 0 else ():
        array_info = {
            "rows": views.num_rows,
            "shape": list(values.shape[1:]),
            "dtype": str(values.dtype).split(".")[-1],
        }
        stage = list(network.stages)[depth - 1]
        record = {**metadata, "stage": stage, **array_info, "seconds": round(time.perf_counter() - start_time, 3)}
        (folders[depth] / METADATA_FILE).write_text(json.dumps(record, indent=2), encoding="utf-8")


def concatenate_shards(folder: Path, num_shards: int) -> None:
    """Makes one values.bin of the `count` shares in `folder`."""
    first_path, *other_paths = (Shard(index, num_shards).get_path(folder) for index in range(num_shards))
    if not other_paths:
        return
    with first_path.open("ab") as stream:
        for shard_path in other_paths:
            with shard_path.open("rb") as shard_stream:
                shutil.copyfileobj(shard_stream, stream, 2**24)
            shard_path.unlink()
        stream.flush()
        os.fsync(stream.fileno())


def _iter_normalized(
    network: Network,
    preprocessing: Preprocessing,
    images: ImageDataset,
    passes: Sequence[ViewPass],
    execution: ExecutionConfig,
    memory_format: torch.memory_format,
    stack: ExitStack,
) -> Iterator[Tensor]:
    """What the first stage takes, of every image of `passes`; `network` is at rest on the device meanwhile."""
    stack.callback(network.to, next(network.parameters()).dtype)  # else an export in double would change it for good
    network.to(execution.device, torch.float64 if execution.precision == DOUBLE_PRECISION else None)
    normalize = Normalize(preprocessing).to(execution.device, next(network.parameters()).dtype)
    stack.enter_context(evaluation_mode(network, memory_format, execution.precision))
    for batch in _show_progress(_iter_batches(images, passes, execution), sum(len(item.positions) for item in passes)):
        pixels = batch.images.to(execution.device, non_blocking=True)
        augmentation_parameters = {
            name: item.to(execution.device, non_blocking=True) for name, item in batch.augmentation_params.items()
        }
        inputs = normalize(
            apply_augmentation(pixels, augmentation_parameters, images.size) if augmentation_parameters else pixels
        )
        yield inputs.contiguous(memory_format=memory_format)


def _get_batch_size(execution: ExecutionConfig) -> int:
    return BATCH_SIZES.get(execution.device.type, BATCH_SIZES["cuda"])


def _iter_batches(images: ImageDataset, passes: Sequence[ViewPass], execution: ExecutionConfig) -> Iterator[Batch]:
    is_on_gpu = execution.device.type == "cuda"
    for view_pass in passes:
        batch_sampler = SequentialBatchSampler(view_pass.positions, _get_batch_size(execution), epoch=view_pass.epoch)
        num_workers = execution.num_workers if len(batch_sampler) > execution.num_workers else 0
        yield from build_dataloader(
            replace(images, augmentation=view_pass.augmentation, views="none"), batch_sampler, num_workers, is_on_gpu
        )


def _show_progress(batches: Iterator[Batch], num_images: int) -> Iterator[Batch]:
    """With a bar that counts images, on a screen."""
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("computing features", total=num_images)
        for batch in batches:
            yield batch
            progress.advance(task, len(batch.labels))


def to_bytes(values: Tensor) -> bytes:
    return values.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
