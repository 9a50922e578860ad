"""Read cached features: one tensor, on the device if it fits there, of which batches are rows."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.data.batches import EVALUATION_EPOCH, Batch, EpochBatchSampler, SequentialBatchSampler
from thaw.features.extract import VALUES_FILE
from thaw.features.views import EVALUATION_VIEW, Views
from thaw.system.cache_entries import METADATA_FILE, touch
from thaw.system.process import get_available_memory

MAX_FREE_MEMORY_FRACTION = 0.5  # of the free memory for features; the network and its gradients need the rest
NUMPY_STAND_INS = {torch.bfloat16: np.int16}  # NumPy has no bfloat16


@dataclass(frozen=True)
class CachedFeatures:
    """The output of the leading `depth` stages.

    Attributes:
        values: [rows, ...].
        depth: number of stages.
        views: maps samples and views to rows.
        labels: of all samples, int64 [samples].
        location: where the values are, for a message: "on the GPU", "in memory" or "on disk".
    """

    values: Tensor
    depth: int
    views: Views
    labels: np.ndarray
    location: str

    def get_evaluation_features(self, positions: np.ndarray) -> Tensor:
        """Return the features of the samples at `positions`, int64 [n], as evaluation sees them: [n, ...]."""
        return self.values[torch.from_numpy(self.views.rows[EVALUATION_VIEW, positions]).to(self.values.device)]

    def iter_batches(self, batch_sampler: EpochBatchSampler | SequentialBatchSampler) -> Iterator[Batch]:
        """Yield the batches of an epoch. Their indices are copied to the device once per epoch, not batch by batch."""
        copies_by_batch = list(batch_sampler.iter_positions())
        copies = np.concatenate(copies_by_batch) if copies_by_batch else np.zeros(0, dtype=np.int64)
        positions = copies % len(self.labels)
        view_indices = (
            np.full(len(copies), EVALUATION_VIEW)
            if batch_sampler.epoch == EVALUATION_EPOCH
            else self.views.select_views(batch_sampler.epoch, copies)
        )
        columns = (self.views.rows[view_indices, positions], self.labels[positions], positions)
        batch_sizes = [len(batch_copies) for batch_copies in copies_by_batch]
        columns_by_batch = [
            torch.split(torch.from_numpy(column).to(self.values.device), batch_sizes) for column in columns
        ]
        for rows, labels, batch_positions in zip(*columns_by_batch, strict=True):
            yield Batch(self.values.index_select(0, rows), labels, batch_positions, {}, self.depth)


def read_features(folder: Path, depth: int, views: Views, labels: np.ndarray, device: torch.device) -> CachedFeatures:
    """Read the features in `folder` and place them on the device, in memory or on disk, the first that has space.

    `labels` are those of all samples, int64 [samples].

    Raises:
        FileNotFoundError: if there are none, or another process has just evicted them.
    """
    metadata = json.loads((folder / METADATA_FILE).read_text(encoding="utf-8"))
    touch(folder)
    dtype: torch.dtype = getattr(torch, metadata["dtype"])
    storage_dtype = NUMPY_STAND_INS.get(dtype) or np.dtype(metadata["dtype"])
    shape = (metadata["rows"], *metadata["shape"])
    # Copy-on-write, although nothing is written: torch warns of arrays that are read-only.
    memory_map = np.memmap(folder / VALUES_FILE, storage_dtype, "c", shape=shape)
    values, location = _place_values(torch.from_numpy(memory_map).view(dtype), device)
    return CachedFeatures(values, depth, views, labels, location)


def _place_values(values: Tensor, device: torch.device) -> tuple[Tensor, str]:
    num_bytes = values.numel() * values.element_size()
    if device.type == "cuda" and num_bytes <= MAX_FREE_MEMORY_FRACTION * torch.cuda.mem_get_info(device)[0]:
        return values.to(device), "on the GPU"
    if num_bytes <= MAX_FREE_MEMORY_FRACTION * get_available_memory():
        return values.clone(), "in memory"
    return values, "on disk"
