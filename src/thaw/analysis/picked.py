"""Which images stand for a data set in its pictures, and what training makes of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thaw.data.batches import EVALUATION, Images
from thaw.data.changes import changed
from thaw.data.samples import Samples


def picked_by_class(samples: Samples, most: int, classes: int) -> dict[int, list[int]]:
    """Label -> positions of at most `most` of its train images, for at most `classes` labels spread over all; the same
    at every call. Any class that is left has train images."""
    labels, train = samples.labels(), samples.of("train")
    shown = np.unique(np.linspace(0, len(samples.classes) - 1, min(classes, len(samples.classes))).round().astype(int))
    dice = np.random.default_rng(0)
    members = {int(label): train[labels[train] == label] for label in shown}
    return {label: sorted(dice.permutation(places)[:most].tolist()) for label, places in members.items()}


def as_they_are(images: Images, positions: Sequence[int]) -> np.ndarray:
    """uint8 [positions, size, size, 3]: the centre crops, as validation sees them."""
    return _pixels(images, EVALUATION, positions)


def as_trained_on(images: Images, epoch: int, positions: Sequence[int]) -> np.ndarray:
    """uint8 [positions, size, size, 3]: what training sees of them in `epoch`."""
    return _pixels(images, epoch, positions)


def _pixels(images: Images, epoch: int, positions: Sequence[int]) -> np.ndarray:
    batch = images.__getitems__([(epoch, int(position)) for position in positions])
    pixels = changed(batch.images, batch.drawn, images.size) if batch.drawn else batch.images
    shown: np.ndarray = pixels.round().clamp(0, 255).byte().permute(0, 2, 3, 1).numpy()
    return shown


def channel_statistics(images: Images, samples: Samples, most: int = 2000) -> tuple[list[float], list[float], int]:
    """Mean and deviation of red, green and blue of train images, 0..1, and of how many; of more than `most` every
    n-th."""
    train = samples.of("train")
    places = train[:: -(-len(train) // most)]
    sums, squares, count = np.zeros(3), np.zeros(3), 0
    for position in places:
        pixels = images.store[int(position)].reshape(-1, 3) / 255.0
        sums, squares, count = sums + pixels.sum(0), squares + (pixels**2).sum(0), count + len(pixels)
    mean = sums / count
    return mean.tolist(), np.sqrt(np.maximum(0, squares / count - mean**2)).tolist(), len(places)
