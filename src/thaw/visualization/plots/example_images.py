"""Select example images of a data set and load them as evaluation and training see them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thaw.data.batches import EVALUATION_EPOCH, ImageDataset
from thaw.data.samples import Samples
from thaw.data.transforms import apply_augmentation


def select_class_examples(samples: Samples, max_per_class: int, max_classes: int) -> dict[int, list[int]]:
    """Return label -> positions of at most `max_per_class` train images, for at most `max_classes` labels.

    The labels are spread evenly over all; the result is the same in each call.
    """
    labels, train_positions = samples.get_labels(), samples.get_positions("train")
    num_classes = min(max_classes, len(samples.classes))
    shown_labels = np.unique(np.linspace(0, len(samples.classes) - 1, num_classes).round().astype(int))
    rng = np.random.default_rng(0)
    positions_by_label = {int(label): train_positions[labels[train_positions] == label] for label in shown_labels}
    return {
        label: sorted(rng.permutation(positions)[:max_per_class].tolist())
        for label, positions in positions_by_label.items()
    }


def evaluation_pixels(images: ImageDataset, positions: Sequence[int]) -> np.ndarray:
    """Load center crops as evaluation sees them: uint8 [positions, size, size, 3]."""
    return _load_pixels(images, EVALUATION_EPOCH, positions)


def training_pixels(images: ImageDataset, epoch: int, positions: Sequence[int]) -> np.ndarray:
    """Load augmented images as training sees them in `epoch`: uint8 [positions, size, size, 3]."""
    return _load_pixels(images, epoch, positions)


def _load_pixels(images: ImageDataset, epoch: int, positions: Sequence[int]) -> np.ndarray:
    batch = images.load_batch([(epoch, int(position)) for position in positions])
    pixels = batch.images
    if batch.augmentation_params:
        pixels = apply_augmentation(pixels, batch.augmentation_params, images.size)
    pixel_array: np.ndarray = pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return pixel_array


def compute_channel_statistics(
    images: ImageDataset, samples: Samples, max_images: int = 2000
) -> tuple[list[float], list[float], int]:
    """Compute mean and standard deviation of red, green and blue of train images, from 0 to 1; return the count too.

    More than `max_images` are represented by every n-th image.
    """
    train_positions = samples.get_positions("train")
    positions = train_positions[:: -(-len(train_positions) // max_images)]
    sums, squares, count = np.zeros(3), np.zeros(3), 0
    for position in positions:
        pixels = images.store[int(position)].reshape(-1, 3) / 255.0
        sums, squares, count = sums + pixels.sum(0), squares + (pixels**2).sum(0), count + len(pixels)
    mean = sums / count
    return mean.tolist(), np.sqrt(np.maximum(0, squares / count - mean**2)).tolist(), len(positions)
