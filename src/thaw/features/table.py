"""Features at hand: batches of them are rows of one tensor, on the device where they fit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.data.batches import EVALUATION, Batch, EpochBatches, InOrder
from thaw.data.contents import ABOUT
from thaw.data.memory import available
from thaw.features.build import VALUES
from thaw.features.shelf import note_use
from thaw.features.views import PLAIN, Views

MOST_OF_FREE_MEMORY = 0.5  # that features may take; the rest is the network's and its gradients'
STAND_IN = {torch.bfloat16: np.int16}  # numpy has no such type


@dataclass(frozen=True)
class Features:
    """What the leading `depth` stages give: `values` [rows, ...], of which `views` says the images. `labels` is int64
    [samples]. `held` is where they lie: on the GPU, in memory, or on disk."""

    values: Tensor
    depth: int
    views: Views
    labels: np.ndarray
    held: str

    def of(self, positions: np.ndarray) -> Tensor:
        """The features of samples as evaluation sees them."""
        return self.values[torch.from_numpy(self.views.rows[PLAIN, positions]).to(self.values.device)]

    def batches(self, order: EpochBatches | InOrder) -> Iterator[Batch]:
        """The batches of an epoch; what a batch holds goes to the device once an epoch, not batch by batch."""
        parts = list(order.drawn())
        copies = np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
        positions = copies % len(self.labels)
        seen = np.full(len(copies), PLAIN) if order.epoch == EVALUATION else self.views.seen(order.epoch, copies)
        columns = (self.views.rows[seen, positions], self.labels[positions], positions)
        sizes = [len(part) for part in parts]
        split = [torch.split(torch.from_numpy(one).to(self.values.device), sizes) for one in columns]
        for rows, labels, places in zip(*split, strict=True):
            yield Batch(self.values[rows], labels, places, {}, self.depth)


def read_features(folder: Path, depth: int, views: Views, labels: np.ndarray, device: torch.device) -> Features:
    """The cache in `folder`, held where there is room: on the device, else in memory, else on disk."""
    about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
    note_use(folder)
    kind: torch.dtype = getattr(torch, about["dtype"])
    stored = STAND_IN.get(kind) or np.dtype(about["dtype"])
    shape = (about["rows"], *about["shape"])
    mapped = np.memmap(folder / VALUES, stored, "c", shape=shape)  # never written to: torch warns of what cannot be
    values, held = _held(torch.from_numpy(mapped).view(kind), device)
    return Features(values, depth, views, labels, held)


def _held(values: Tensor, device: torch.device) -> tuple[Tensor, str]:
    size = values.numel() * values.element_size()
    if device.type == "cuda" and size <= MOST_OF_FREE_MEMORY * torch.cuda.mem_get_info(device)[0]:
        return values.to(device), "on the GPU"
    if size <= MOST_OF_FREE_MEMORY * available():
        return values.clone(), "in memory"
    return values, "on disk"
