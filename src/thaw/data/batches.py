"""Store -> batches. Order and augmentation are functions of (seed, epoch, sample), whoever loads them and when."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from thaw.data.augmentation import Augmentation, apply_policy
from thaw.data.class_balance import balanced_sample
from thaw.data.image_store import ImageStore, LazyImageStore
from thaw.data.test_time_augmentation import build_views, center_crop

EVALUATION_EPOCH = -1  # the epoch of images that are not augmented


class Batch(NamedTuple):
    """`images` uint8 [n, 3, height, width], `labels` int64 [n], `positions` in the table of samples int64 [n]. `drawn`
    is what augmentation is to do to them (`changes.changed`); without it the images are of the network's size, and with
    `Images.views` they are uint8 [n, views, 3, size, size]. With a `depth`, `images` are what the leading `depth`
    stages of the network have made of them."""

    images: Tensor
    labels: Tensor
    positions: Tensor
    augmentation_params: dict[str, Tensor]
    depth: int = 0


@dataclass
class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
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
    world_size: int = 1
    labels: np.ndarray | None = None

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        count, global_batch_size = len(self.positions), self.batch_size * self.world_size
        return max(1, count // global_batch_size + (count % global_batch_size >= 2 * self.world_size))

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for copies in self.iter_positions():
            yield [(self.epoch, copy) for copy in copies.tolist()]

    def iter_positions(self) -> Iterator[np.ndarray]:
        """The positions alone, int64, batch by batch."""
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(
            self.positions if self.labels is None else balanced_sample(self.positions, self.labels, rng)
        )
        for batch_index in range(len(self)):
            yield order[self._get_batch_slice(batch_index)][self.rank :: self.world_size]

    def compute_batch_weight(self, batch_index: int) -> float:
        """What a mean over this process' share of batch `number` counts in the mean of all processes' means, so that
        every image counts the same; 1 where the shares are equal."""
        count = len(self.positions[self._get_batch_slice(batch_index)])
        return len(range(self.rank, count, self.world_size)) * self.world_size / count

    def _get_batch_slice(self, batch_index: int) -> slice:
        global_batch_size = self.batch_size * self.world_size
        return slice(
            batch_index * global_batch_size,
            None if batch_index == len(self) - 1 else (batch_index + 1) * global_batch_size,
        )


@dataclass
class SequentialBatchSampler(Sampler[list[tuple[int, int]]]):
    """`positions` as they stand, seen as in `epoch`; for each of `world` processes every `world`-th of them, in as many
    batches as any other has: weights that lie in pieces are put together batch by batch, by all processes at once."""

    positions: np.ndarray
    batch_size: int
    rank: int = 0
    world_size: int = 1
    epoch: int = EVALUATION_EPOCH

    def __len__(self) -> int:
        max_samples_per_rank = -(-len(self.positions) // self.world_size)
        return -(-max_samples_per_rank // self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for positions in self.iter_positions():
            yield [(self.epoch, position) for position in positions.tolist()]

    def iter_positions(self) -> Iterator[np.ndarray]:
        """The positions alone, int64, batch by batch."""
        rank_positions = self.positions[self.rank :: self.world_size]
        starts = list(range(0, len(rank_positions), self.batch_size))
        if len(starts) < len(self):
            starts.append(len(rank_positions) - 1)  # the others have one image more, a batch of its own
        if starts:
            yield from np.split(rank_positions, starts[1:])


@dataclass
class ImageDataset(Dataset[Batch]):
    """Cuts batches for a network of `size` x `size` pixels from the store. `labels` is int64 [samples]. `views` is what
    evaluation sees of an image (`views.views_of`)."""

    store: ImageStore | LazyImageStore
    labels: np.ndarray
    size: int
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    views: str = "none"

    def __getitems__(self, indices: list[tuple[int, int]]) -> Batch:
        """All `wanted` are of one epoch. Copies of a sample (`balance.evenly_drawn`) are augmented differently."""
        epoch, copies = indices[0][0], np.array([position for _, position in indices])
        positions = copies % len(self.labels)
        params: dict[str, Tensor] = {}
        if epoch == EVALUATION_EPOCH and self.views != "none":
            images = torch.stack([build_views(self._load_image(epoch, copy), self.size, self.views) for copy in copies])
        elif epoch == EVALUATION_EPOCH or self.augmentation.is_empty:
            images = torch.stack([center_crop(self._load_image(epoch, copy), self.size) for copy in copies])
        else:
            images, image_sizes = pad_to_canvas([self._load_image(epoch, copy) for copy in copies])
            params = self.augmentation.sample_params(image_sizes, self.size, self.seed, epoch, copies)
        return Batch(images.contiguous(), torch.from_numpy(self.labels[positions]), torch.from_numpy(positions), params)

    def _load_image(self, epoch: int, copy: int) -> Tensor:
        image = torch.from_numpy(np.array(self.store[copy % len(self.labels)])).permute(2, 0, 1)
        if epoch == EVALUATION_EPOCH or self.augmentation.policy is None:
            return image
        return apply_policy(image, self.augmentation.policy, self.seed, epoch, copy)


def pad_to_canvas(images: list[Tensor]) -> tuple[Tensor, np.ndarray]:
    """uint8 [n, 3, height, width] of the largest sides, each image in its upper left, and int64 sides [n, 2]."""
    image_sizes = np.array([image.shape[1:] for image in images])
    canvas = torch.zeros((len(images), 3, *image_sizes.max(0)), dtype=torch.uint8)
    for padded, image in zip(canvas, images, strict=True):
        padded[:, : image.shape[1], : image.shape[2]] = image
    return canvas, image_sizes


def build_dataloader(
    dataset: ImageDataset, batch_sampler: EpochBatchSampler | SequentialBatchSampler, num_workers: int, pin_memory: bool
) -> DataLoader[Batch]:
    return DataLoader(
        dataset,
        batch_sampler=batch_sampler,
        collate_fn=_identity_collate,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),  # else each new iterator would draw a number that the network's dropout is to get
    )


def _identity_collate(batch: Any) -> Any:
    return batch
