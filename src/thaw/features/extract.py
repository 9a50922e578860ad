"""Run the frozen stages over the images once and write their outputs to disk."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from thaw.data.batches import Batch, ImageDataset, SequentialBatchSampler, build_dataloader
from thaw.data.transforms import apply_augmentation
from thaw.features.cache_key import FeatureSpec
from thaw.features.forward import MEMORY_FORMATS, evaluation_mode, iter_stage_outputs
from thaw.features.views import ViewPass
from thaw.models.network import Network, Normalize
from thaw.models.precision import DOUBLE_PRECISION
from thaw.system.cache_entries import METADATA_FILE
from thaw.system.reporter import SILENT, Reporter

VALUES_FILE = "values.bin"
BATCH_SIZES = {"cpu": 16, "cuda": 256}  # small ones stay in a CPU's caches


@dataclass(frozen=True)
class FeatureSource:
    """A network and the images that it computes features of, as `spec` says."""

    network: Network
    images: ImageDataset
    spec: FeatureSpec


@dataclass(frozen=True)
class ExecutionConfig:
    """The device that computes, and the number of worker processes that load batches."""

    device: torch.device
    num_workers: int


@dataclass(frozen=True)
class ComputeRequest:
    """What one pass over the images computes.

    Attributes:
        folders: where the output of the leading `depth` stages is written, by depth.
        memory_format: a key of MEMORY_FORMATS.
        metadata: what the features say about themselves.
    """

    folders: Mapping[int, Path]
    memory_format: str
    metadata: Mapping[str, str]


@dataclass(frozen=True)
class Shard:
    """Part `index` of a pass over the images that is split in `num_shards`; each part is a file until they are
    concatenated."""

    index: int = 0
    num_shards: int = 1

    def get_path(self, folder: Path) -> Path:
        """Return the file of this part in `folder`."""
        return folder / (f"{VALUES_FILE}.{self.index}" if self.index else VALUES_FILE)

    def select_passes(self, passes: Sequence[ViewPass], batch_size: int) -> Iterator[ViewPass]:
        """Yield the images of each pass that belong to this part: whole batches, the same that a single process has, so
        that the features are the same to the last bit. The first part has at least one batch."""
        num_batches = sum(_count_batches(view_pass, batch_size) for view_pass in passes)
        start, end = (-(-num_batches * index // self.num_shards) for index in (self.index, self.index + 1))
        for view_pass in passes:
            positions = view_pass.positions[max(0, start) * batch_size : max(0, end) * batch_size]
            yield replace(view_pass, positions=positions)
            num_pass_batches = _count_batches(view_pass, batch_size)
            start, end = start - num_pass_batches, end - num_pass_batches


def _count_batches(view_pass: ViewPass, batch_size: int) -> int:
    return -(-len(view_pass.positions) // batch_size)


def extract_features(
    source: FeatureSource,
    execution: ExecutionConfig,
    request: ComputeRequest,
    shard: Shard,
    reporter: Reporter = SILENT,
) -> None:
    """Write the output of the leading `depth` stages into `request.folders[depth]`, all depths in one pass.

    A folder gets a file of values for each shard, row after row as the views order them; `concatenate_shards` makes one
    values.bin of them. The first shard also writes meta.json: shape, type and what the features are of.

    Raises:
        OSError: if the disk is full.
    """
    start_time, depths, last_outputs = time.perf_counter(), sorted(request.folders), dict[int, Tensor]()
    passes = list(shard.select_passes(source.spec.views.passes, _get_batch_size(execution)))
    with ExitStack() as stack:
        streams = {depth: stack.enter_context(shard.get_path(request.folders[depth]).open("wb")) for depth in depths}
        num_images = sum(len(view_pass.positions) for view_pass in passes)
        advance = stack.enter_context(reporter.progress("computing features", num_images))
        stack.enter_context(_prepared_network(source, execution, request))
        for inputs in _iter_inputs(source, execution, request, passes, advance):
            for depth, values in iter_stage_outputs(source.network, inputs, depths):
                last_outputs[depth] = values
                streams[depth].write(to_bytes(values))
        for stream in streams.values():
            _flush_to_disk(stream)
    if shard.index == 0:
        for depth, values in last_outputs.items():
            _write_metadata(source, request, depth, values, time.perf_counter() - start_time)


def _write_metadata(source: FeatureSource, request: ComputeRequest, depth: int, values: Tensor, seconds: float) -> None:
    metadata = {
        **request.metadata,
        "stage": list(source.network.stages)[depth - 1],
        "rows": source.spec.views.num_rows,
        "shape": list(values.shape[1:]),
        "dtype": str(values.dtype).split(".")[-1],
        "seconds": round(seconds, 3),
    }
    (request.folders[depth] / METADATA_FILE).write_text(json.dumps(metadata, indent=2), encoding="utf-8")


def concatenate_shards(folder: Path, num_shards: int) -> None:
    """Make one values.bin of the files of `num_shards` parts in `folder`."""
    first_path, *other_paths = (Shard(index, num_shards).get_path(folder) for index in range(num_shards))
    if not other_paths:
        return
    with first_path.open("ab") as stream:
        for shard_path in other_paths:
            with shard_path.open("rb") as shard_stream:
                shutil.copyfileobj(shard_stream, stream, 2**24)
            shard_path.unlink()
        _flush_to_disk(stream)


def _flush_to_disk(stream: BinaryIO) -> None:
    stream.flush()
    os.fsync(stream.fileno())


@contextmanager
def _prepared_network(source: FeatureSource, execution: ExecutionConfig, request: ComputeRequest) -> Iterator[None]:
    """Hold the network in evaluation mode on the device, at its precision; restore its modes and type."""
    network = source.network
    previous_dtype = next(network.parameters()).dtype
    network.to(execution.device, torch.float64 if network.precision.trained == DOUBLE_PRECISION else None)
    try:
        with evaluation_mode(network, MEMORY_FORMATS[request.memory_format]):
            yield
    finally:
        network.to(previous_dtype)


def _iter_inputs(
    source: FeatureSource,
    execution: ExecutionConfig,
    request: ComputeRequest,
    passes: Sequence[ViewPass],
    advance: Callable[[int], None],
) -> Iterator[Tensor]:
    """Yield the input of the first stage, batch by batch: augmented and normalized, on the device."""
    device, memory_format = execution.device, MEMORY_FORMATS[request.memory_format]
    normalize = Normalize(source.spec.preprocessing).to(device, next(source.network.parameters()).dtype)
    for batch in _iter_batches(source.images, passes, execution):
        pixels = batch.images.to(device, non_blocking=True)
        params = {name: value.to(device, non_blocking=True) for name, value in batch.augmentation_params.items()}
        augmented_pixels = apply_augmentation(pixels, params, source.images.size) if params else pixels
        yield normalize(augmented_pixels).contiguous(memory_format=memory_format)
        advance(len(batch.labels))


def _iter_batches(images: ImageDataset, passes: Sequence[ViewPass], execution: ExecutionConfig) -> Iterator[Batch]:
    for view_pass in passes:
        batch_sampler = SequentialBatchSampler(view_pass.positions, _get_batch_size(execution), epoch=view_pass.epoch)
        num_workers = execution.num_workers if len(batch_sampler) > execution.num_workers else 0
        pass_images = replace(images, augmentation=view_pass.augmentation, views="none")
        yield from build_dataloader(pass_images, batch_sampler, num_workers, execution.device.type == "cuda")


def _get_batch_size(execution: ExecutionConfig) -> int:
    return BATCH_SIZES.get(execution.device.type, BATCH_SIZES["cuda"])


def to_bytes(values: Tensor) -> bytes:
    """Return the bytes of `values`, row by row."""
    return values.cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
