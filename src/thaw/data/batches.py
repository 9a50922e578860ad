"""Store -> batches. Order and augmentation are functions of (seed, epoch, sample), whoever loads them and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from thaw.data.augmentation import Augmentation
from thaw.data.store import Store

EVALUATION = -1  # the epoch of images that are not augmented
Batch = tuple[Tensor, Tensor, Tensor]  # uint8 [n, 3, size, size], int64 labels [n], int64 positions in the table [n]


@dataclass
class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Lists of (epoch, position): `positions` shuffled by (seed, epoch), `batch_size` at a time.

    A last batch of one sample joins the one before it: BatchNorm cannot normalise a single vector.
    """

    positions: np.ndarray
    batch_size: int
    seed: int
    epoch: int = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        count = len(self.positions)
        return max(1, count // self.batch_size + (count % self.batch_size > 1))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.positions)
        for number in range(len(self)):
            end = None if number == len(self) - 1 else (number + 1) * self.batch_size
            yield [(self.epoch, int(position)) for position in order[number * self.batch_size : end]]


@dataclass
class InOrder(Sampler[list[tuple[int, int]]]):
    """`positions` as they stand, not augmented."""

    positions: np.ndarray
    batch_size: int

    def __len__(self) -> int:
        return -(-len(self.positions) // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for start in range(0, len(self.positions), self.batch_size):
            yield [(EVALUATION, int(position)) for position in self.positions[start : start + self.batch_size]]


@dataclass
class Images(Dataset[Batch]):
    """Cuts batches of `size` x `size` pixels from the store. `labels` is int64 [samples]."""

    store: Store
    labels: np.ndarray
    size: int
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0

    def __getitems__(self, wanted: list[tuple[int, int]]) -> Batch:
        images = torch.stack([self._image(epoch, position) for epoch, position in wanted])
        positions = torch.tensor([position for _, position in wanted])
        return images.contiguous(), torch.from_numpy(self.labels[positions.numpy()]), positions

    def _image(self, epoch: int, position: int) -> Tensor:
        image = torch.from_numpy(np.array(self.store[position])).permute(2, 0, 1)
        if epoch == EVALUATION or self.augmentation.is_empty:
            return centre_crop(image, self.size)
        dice = np.random.default_rng((self.seed, epoch, position))
        return self.augmentation.apply(image, self.size, dice)


def centre_crop(image: Tensor, size: int) -> Tensor:
    """[3, size, size] from [3, height, width], rounded as torchvision rounds."""
    top, left = (round((side - size) / 2.0) for side in image.shape[1:])
    return image[:, top : top + size, left : left + size]


def loader(images: Images, batches: EpochBatches | InOrder, workers: int, pinned: bool) -> DataLoader[Batch]:
    return DataLoader(
        images,
        batch_sampler=batches,
        collate_fn=_as_it_is,
        num_workers=workers,
        pin_memory=pinned,
        persistent_workers=workers > 0,
        generator=torch.Generator(),  # else each new iterator would draw a number that the network's dropout is to get
    )


def _as_it_is(batch: Any) -> Any:
    return batch
