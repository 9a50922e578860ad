"""Which images stand for a data set in its pictures, and what training makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thaw.data.batches import EVALUATION_EPOCH, ImageDataset
from thaw.data.samples import Samples
from thaw.data.transforms import apply_augmentation


def select_class_examples(samples: Samples, max_per_class: int, max_classes: int) -> dict[int, list[int]]:
    """Label -> positions of at most `most` of its train images, for at most `classes` labels spread over all; the same
    at every call. Any class that is left has train images."""
    labels, train = samples.get_labels(), samples.get_positions("train")
    shown_labels = np.unique(
        np.linspace(0, len(samples.classes) - 1, min(max_classes, len(samples.classes))).round().astype(int)
    )
    rng = np.random.default_rng(0)
    positions_by_label = {int(label): train[labels[train] == label] for label in shown_labels}
    return {
        label: sorted(rng.permutation(positions)[:max_per_class].tolist())
        for label, positions in positions_by_label.items()
    }


def evaluation_pixels(images: ImageDataset, positions: Sequence[int]) -> np.ndarray:
    """uint8 [positions, size, size, 3]: the centre crops, as validation sees them."""
    return _load_pixels(images, EVALUATION_EPOCH, positions)


def training_pixels(images: ImageDataset, epoch: int, positions: Sequence[int]) -> np.ndarray:
    """uint8 [positions, size, size, 3]: what training sees of them in `epoch`."""
    return _load_pixels(images, epoch, positions)


def _load_pixels(images: ImageDataset, epoch: int, positions: Sequence[int]) -> np.ndarray:
    batch = images.__getitems__([(epoch, int(position)) for position in positions])
    pixels = (
        apply_augmentation(batch.images, batch.augmentation_params, images.size)
        if batch.augmentation_params
        else batch.images
    )
    pixel_array: np.ndarray = pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return pixel_array


def compute_channel_statistics(
    images: ImageDataset, samples: Samples, max_images: int = 2000
) -> tuple[list[float], list[float], int]:
    """Mean and deviation of red, green and blue of train images, 0..1, and of how many; of more than `most` every
    n-th."""
    train = samples.get_positions("train")
    positions = train[:: -(-len(train) // max_images)]
    sums, squares, count = np.zeros(3), np.zeros(3), 0
    for position in positions:
        pixels = images.store[int(position)].reshape(-1, 3) / 255.0
        sums, squares, count = sums + pixels.sum(0), squares + (pixels**2).sum(0), count + len(pixels)
    mean = sums / count
    return mean.tolist(), np.sqrt(np.maximum(0, squares / count - mean**2)).tolist(), len(positions)
