"""Store -> batches. Order and augmentation are functions of (seed, epoch, sample), whoever loads them and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from thaw.data.augmentation import Augmentation, policy_changed
from thaw.data.live import Live
from thaw.data.store import Store

EVALUATION = -1  # the epoch of images that are not augmented


class Batch(NamedTuple):
    """`images` uint8 [n, 3, height, width], `labels` int64 [n], `positions` in the table of samples int64 [n]. `drawn`
    is what augmentation is to do to them (`changes.changed`); without it the images are of the network's size."""

    images: Tensor
    labels: Tensor
    positions: Tensor
    drawn: dict[str, Tensor]


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
    """Cuts batches for a network of `size` x `size` pixels from the store. `labels` is int64 [samples]."""

    store: Store | Live
    labels: np.ndarray
    size: int
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0

    def __getitems__(self, wanted: list[tuple[int, int]]) -> Batch:
        """All `wanted` are of one epoch."""
        epoch, positions = wanted[0][0], np.array([position for _, position in wanted])
        drawn: dict[str, Tensor] = {}
        if epoch == EVALUATION or self.augmentation.is_empty:
            images = torch.stack([centre_crop(self._image(epoch, position), self.size) for position in positions])
        else:
            images, sides = on_one_canvas([self._image(epoch, position) for position in positions])
            drawn = self.augmentation.draw(sides, self.size, self.seed, epoch, positions)
        return Batch(images.contiguous(), torch.from_numpy(self.labels[positions]), torch.from_numpy(positions), drawn)

    def _image(self, epoch: int, position: int) -> Tensor:
        image = torch.from_numpy(np.array(self.store[position])).permute(2, 0, 1)
        if epoch == EVALUATION or self.augmentation.policy is None:
            return image
        return policy_changed(image, self.augmentation.policy, self.seed, epoch, position)


def on_one_canvas(images: list[Tensor]) -> tuple[Tensor, np.ndarray]:
    """uint8 [n, 3, height, width] of the largest sides, each image in its upper left, and int64 sides [n, 2]."""
    sides = np.array([image.shape[1:] for image in images])
    canvas = torch.zeros((len(images), 3, *sides.max(0)), dtype=torch.uint8)
    for place, image in zip(canvas, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return canvas, sides


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
