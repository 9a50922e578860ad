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
from thaw.data.balance import evenly_drawn
from thaw.data.live import Live
from thaw.data.store import Store
from thaw.data.views import centre_crop, views_of

EVALUATION = -1  # the epoch of images that are not augmented


class Batch(NamedTuple):
    """`images` uint8 [n, 3, height, width], `labels` int64 [n], `positions` in the table of samples int64 [n]. `drawn`
    is what augmentation is to do to them (`changes.changed`); without it the images are of the network's size, and with
    `Images.views` they are uint8 [n, views, 3, size, size]. With a `depth`, `images` are what the leading `depth`
    stages of the network have made of them."""

    images: Tensor
    labels: Tensor
    positions: Tensor
    drawn: dict[str, Tensor]
    depth: int = 0


@dataclass
class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Lists of (epoch, position): `positions` shuffled by (seed, epoch), `batch_size` at a time, for each of `world`
    processes its own share of every batch.

    A last batch of one sample for some process joins the one before: BatchNorm cannot normalise a single vector. With
    the `labels` of all samples the classes are drawn equally often, copies being numbered as `evenly_drawn` says.
    """

    positions: np.ndarray
    batch_size: int
    seed: int
    epoch: int = 0
    rank: int = 0
    world: int = 1
    labels: np.ndarray | None = None

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        count, together = len(self.positions), self.batch_size * self.world
        return max(1, count // together + (count % together >= 2 * self.world))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for copies in self.drawn():
            yield [(self.epoch, copy) for copy in copies.tolist()]

    def drawn(self) -> Iterator[np.ndarray]:
        """The positions alone, int64, batch by batch."""
        dice = np.random.default_rng((self.seed, self.epoch))
        order = dice.permutation(
            self.positions if self.labels is None else evenly_drawn(self.positions, self.labels, dice)
        )
        for number in range(len(self)):
            yield order[self._slice(number)][self.rank :: self.world]

    def weight(self, number: int) -> float:
        """What a mean over this process' share of batch `number` counts in the mean of all processes' means, so that
        every image counts the same; 1 where the shares are equal."""
        count = len(self.positions[self._slice(number)])
        return len(range(self.rank, count, self.world)) * self.world / count

    def _slice(self, number: int) -> slice:
        together = self.batch_size * self.world
        return slice(number * together, None if number == len(self) - 1 else (number + 1) * together)


@dataclass
class InOrder(Sampler[list[tuple[int, int]]]):
    """`positions` as they stand, seen as in `epoch`; for each of `world` processes every `world`-th of them, in as many
    batches as any other has: weights that lie in pieces are put together batch by batch, by all processes at once."""

    positions: np.ndarray
    batch_size: int
    rank: int = 0
    world: int = 1
    epoch: int = EVALUATION

    def __len__(self) -> int:
        largest = -(-len(self.positions) // self.world)
        return -(-largest // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for positions in self.drawn():
            yield [(self.epoch, position) for position in positions.tolist()]

    def drawn(self) -> Iterator[np.ndarray]:
        """The positions alone, int64, batch by batch."""
        own = self.positions[self.rank :: self.world]
        starts = list(range(0, len(own), self.batch_size))
        if len(starts) < len(self):
            starts.append(len(own) - 1)  # the others have one image more, a batch of its own
        if starts:
            yield from np.split(own, starts[1:])


@dataclass
class Images(Dataset[Batch]):
    """Cuts batches for a network of `size` x `size` pixels from the store. `labels` is int64 [samples]. `views` is what
    evaluation sees of an image (`views.views_of`)."""

    store: Store | Live
    labels: np.ndarray
    size: int
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    views: str = "none"

    def __getitems__(self, wanted: list[tuple[int, int]]) -> Batch:
        """All `wanted` are of one epoch. Copies of a sample (`balance.evenly_drawn`) are augmented differently."""
        epoch, copies = wanted[0][0], np.array([position for _, position in wanted])
        positions = copies % len(self.labels)
        drawn: dict[str, Tensor] = {}
        if epoch == EVALUATION and self.views != "none":
            images = torch.stack([views_of(self._image(epoch, one), self.size, self.views) for one in copies])
        elif epoch == EVALUATION or self.augmentation.is_empty:
            images = torch.stack([centre_crop(self._image(epoch, one), self.size) for one in copies])
        else:
            images, sides = on_one_canvas([self._image(epoch, one) for one in copies])
            drawn = self.augmentation.draw(sides, self.size, self.seed, epoch, copies)
        return Batch(images.contiguous(), torch.from_numpy(self.labels[positions]), torch.from_numpy(positions), drawn)

    def _image(self, epoch: int, copy: int) -> Tensor:
        image = torch.from_numpy(np.array(self.store[copy % len(self.labels)])).permute(2, 0, 1)
        if epoch == EVALUATION or self.augmentation.policy is None:
            return image
        return policy_changed(image, self.augmentation.policy, self.seed, epoch, copy)


def on_one_canvas(images: list[Tensor]) -> tuple[Tensor, np.ndarray]:
    """uint8 [n, 3, height, width] of the largest sides, each image in its upper left, and int64 sides [n, 2]."""
    sides = np.array([image.shape[1:] for image in images])
    canvas = torch.zeros((len(images), 3, *sides.max(0)), dtype=torch.uint8)
    for place, image in zip(canvas, images, strict=True):
        place[:, : image.shape[1], : image.shape[2]] = image
    return canvas, sides


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
