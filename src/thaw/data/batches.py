"""Draw batches of images in an order that depends on seed and epoch alone, with classes balanced if wanted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, get_worker_info

from thaw.config.errors import UserError
from thaw.data.augmentation import Augmentation, apply_policy, build_views, center_crop
from thaw.data.image_store import ImageStore, LazyImageStore

EVALUATION_EPOCH = -1  # the epoch number of images that are not augmented


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return weights, float32 [classes], inversely proportional to the frequency of each class in `labels`, int64 [n].

    Their mean over the images is 1, so that the learning rate keeps its meaning. A class without images has weight 0.
    """
    counts = np.bincount(labels, minlength=num_classes)
    weights = np.where(counts > 0, len(labels) / (np.maximum(counts, 1) * np.count_nonzero(counts)), 0.0)
    return weights.astype(np.float32)


def balanced_sample(positions: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw as many samples as there are `positions`, int64 [n], with equal numbers of each class, class by class.

    The numbers of two classes, and of two images of a class, differ by at most 1. `labels` is int64 [samples], the
    labels of all samples that `positions` may refer to. The k-th further copy of a sample is numbered position +
    k * samples, so that each copy is augmented differently.
    """
    candidate_labels = labels[positions]
    present_classes = rng.permutation(np.unique(candidate_labels))  # the first ones get the remaining images
    quotas = np.full(len(present_classes), len(positions) // len(present_classes))
    quotas[: len(positions) % len(present_classes)] += 1
    positions_per_class = [
        _repeat_shuffled(positions[candidate_labels == label], quota, len(labels), rng)
        for label, quota in zip(present_classes, quotas, strict=True)
    ]
    return np.concatenate(positions_per_class)


def _repeat_shuffled(members: np.ndarray, count: int, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    permutations = [rng.permutation(members) + copy * num_samples for copy in range(-(-count // len(members)))]
    return np.concatenate(permutations)[:count] if permutations else members[:0]


class Batch(NamedTuple):
    """One batch.

    Attributes:
        images: uint8 [n, 3, height, width]; uint8 [n, views, 3, size, size] in evaluation with views; with a `depth`,
            the output of the leading `depth` stages of the network.
        labels: int64 [n].
        positions: positions in `Samples.samples`, int64 [n].
        augmentation_params: parameters for `transforms.apply_augmentation`; if empty, images have the network's input
            size.
        depth: number of stages that `images` have passed through; 0 for pixels.
    """

    images: Tensor
    labels: Tensor
    positions: Tensor
    augmentation_params: dict[str, Tensor]
    depth: int = 0

    def to(self, device: torch.device) -> Batch:
        """Return the batch on `device`. A copy from pinned memory to a GPU does not wait."""
        if self.images.device == device:
            return self
        is_async = device.type == "cuda"
        images, labels, positions = (tensor.to(device, non_blocking=is_async) for tensor in self[:3])
        params = {name: tensor.to(device, non_blocking=is_async) for name, tensor in self.augmentation_params.items()}
        return Batch(images, labels, positions, params, self.depth)


@dataclass
class EpochBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yield lists of (epoch, position): `positions` shuffled by (seed, epoch), `batch_size` for each of `world_size`
    processes; process `rank` gets its share of every batch.

    A last batch with one sample for some process is merged into the one before, because BatchNorm cannot normalize a
    single vector. If `labels` of all samples are given, the classes are drawn equally often (see `balanced_sample` for
    the numbers of copies).
    """

    positions: np.ndarray
    batch_size: int
    seed: int
    epoch: int = 0
    rank: int = 0
    world_size: int = 1
    labels: np.ndarray | None = None

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch that the next iteration yields."""
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

    def compute_batch_weight(self, batch_index: int, accumulate_grad_batches: int = 1) -> float:
        """Return the weight of this process's mean over batch `batch_index` in the loss of an optimizer step, which is
        the mean over all processes of their sums over the step's batches.

        `accumulate_grad_batches` batches make a step; the last step of an epoch may have fewer. The weights make every
        image of a step count the same. A step of one batch has the weight 1 if all processes have equally many images.
        """
        first_index = batch_index - batch_index % accumulate_grad_batches
        indices = range(first_index, min(first_index + accumulate_grad_batches, len(self)))
        step_count = sum(self._count_images(index) for index in indices)
        own_count = len(range(self.rank, self._count_images(batch_index), self.world_size))
        return own_count * self.world_size / step_count

    def _count_images(self, batch_index: int) -> int:
        return len(self.positions[self._get_batch_slice(batch_index)])

    def _get_batch_slice(self, batch_index: int) -> slice:
        global_batch_size = self.batch_size * self.world_size
        return slice(
            batch_index * global_batch_size,
            None if batch_index == len(self) - 1 else (batch_index + 1) * global_batch_size,
        )


@dataclass
class SequentialBatchSampler(Sampler[list[tuple[int, int]]]):
    """Yield lists of (epoch, position) in the order of `positions`; process `rank` gets every `world_size`-th of them.

    All processes get the same number of batches, because sharded weights are gathered for each batch by all of them.
    """

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
            starts.append(len(rank_positions) - 1)  # the other processes have one image more, in a batch of its own
        if starts:
            yield from np.split(rank_positions, starts[1:])


@dataclass
class ImageDataset(Dataset[Batch]):
    """Load batches from a store for a network of `size` x `size` pixels.

    `labels` is int64 [samples]. `views` is the kind of views in evaluation (see `test_time_augmentation.build_views`).
    """

    store: ImageStore | LazyImageStore
    labels: np.ndarray
    size: int
    augmentation: Augmentation = field(default_factory=Augmentation)
    seed: int = 0
    views: str = "none"

    def __getitems__(self, indices: list[tuple[int, int]]) -> Batch | UserError:
        """Load a batch of (epoch, position), all of one epoch. Copies of a sample are augmented differently.

        A worker process returns a UserError, which `ImageLoader` raises: torch would make text of a traceback of it.
        """
        try:
            return self.load_batch(indices)
        except UserError as error:
            if get_worker_info() is None:
                raise
            return error

    def load_batch(self, indices: list[tuple[int, int]]) -> Batch:
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
    """Pad images to the largest height and width: uint8 [n, 3, height, width], and their own sizes, int64 [n, 2]."""
    image_sizes = np.array([image.shape[1:] for image in images])
    canvas = torch.zeros((len(images), 3, *image_sizes.max(0)), dtype=torch.uint8)
    for padded, image in zip(canvas, images, strict=True):
        padded[:, : image.shape[1], : image.shape[2]] = image
    return canvas, image_sizes


class ImageLoader(DataLoader[Batch]):
    """Loads batches of an ImageDataset, and raises the user's errors of worker processes as they are."""

    def __iter__(self) -> Iterator[Batch]:  # type: ignore[override]
        for batch in super().__iter__():
            if isinstance(batch, UserError):
                raise batch
            yield batch


def build_dataloader(
    dataset: ImageDataset, batch_sampler: EpochBatchSampler | SequentialBatchSampler, num_workers: int, pin_memory: bool
) -> ImageLoader:
    """Build a data loader that yields whole batches of `dataset` and leaves torch's global generator unchanged."""
    return ImageLoader(
        dataset,
        batch_sampler=batch_sampler,
        collate_fn=_identity_collate,
        num_workers=num_workers,
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        generator=torch.Generator(),  # otherwise each iterator advances the global generator of dropout
    )


def _identity_collate(batch: Any) -> Any:
    return batch
