"""Find images of another kind, which are far from all others in feature space, and images that show nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from thaw.auditing.neighbors import Neighbors

# Standard deviations above the median. With 1 % images of another data set planted in each of eight, 2.25 listed 92 %
# of them and 0.7 % of the others, and 3 listed 73 % and 0.4 %.
MIN_DEVIATION = 2.25
MAX_LISTED_FRACTION = 0.02  # of the images
MIN_IMAGES = 30  # for a distribution of distances
MAD_TO_STD = 1.4826  # of a normal distribution
MAX_BLANK_STD = 4.0  # of 255
BLANK_SIDE = 64  # pixels that are looked at in each direction


@dataclass(frozen=True)
class Outlier:
    """An image that is far from all others.

    Attributes:
        position: of the image.
        distance: to its 50th nearest image, as `Neighbors.distances`.
        deviation: by how many standard deviations its logarithm is above the median.
        nearest: position of its nearest image.
    """

    position: int
    distance: float
    deviation: float
    nearest: int


@dataclass(frozen=True)
class BlankImage:
    """An image that shows nothing; `std` is the standard deviation of its pixels, from 0 to 127.5."""

    position: int
    std: float


def find_outliers(neighbors: Neighbors) -> tuple[Outlier, ...]:
    """Return the images whose farthest neighbor is unusually far, the farthest first; at most 2 % of the images.

    The 50th neighbor is used, since up to 50 images of another kind are each other's neighbors: with the 10th, 82 % of
    the first ones were planted images of another data set instead of 94 %. The local outlier factor, standardized or
    projected features found fewer. The spread of the logarithm of the distances is measured above their median only,
    where it is larger than below.
    """
    num_images = len(neighbors.distances)
    if num_images < MIN_IMAGES or not neighbors.distances.shape[1]:
        return ()
    distances = neighbors.distances[:, -1].astype(np.float64)
    deviations = _compute_deviations(np.log(distances + np.finfo(np.float32).tiny))
    order = np.argsort(-deviations, kind="stable")
    order = order[: max(1, round(MAX_LISTED_FRACTION * num_images))]
    return tuple(
        Outlier(int(index), float(distances[index]), float(deviations[index]), int(neighbors.indices[index, 0]))
        for index in order
        if deviations[index] >= MIN_DEVIATION
    )


def _compute_deviations(values: np.ndarray) -> np.ndarray:
    """Return by how many standard deviations each of `values` is above the median, robust to outliers."""
    median = np.median(values)
    spread = float(np.median(values[values > median] - median)) if (values > median).any() else 0.0
    return np.asarray((values - median) / (MAD_TO_STD * spread)) if spread else np.zeros_like(values)


def find_blank_images(
    images: Iterable[np.ndarray], advance: Callable[[int], None] = lambda _: None
) -> tuple[BlankImage, ...]:
    """Return the images with nearly the same pixels everywhere, the most uniform first.

    Each image is uint8 [height, width, 3]; about 64 x 64 of its pixels are looked at. A blank wall is not uniform: its
    noise and shading have a standard deviation of more than 4 of 255.
    """
    blank_images = []
    for position, pixels in enumerate(images):
        height, width = pixels.shape[:2]
        steps = max(1, height // BLANK_SIDE), max(1, width // BLANK_SIDE)
        std = float(pixels[:: steps[0], :: steps[1]].std((0, 1)).max()) if pixels.size else 0.0
        if std <= MAX_BLANK_STD:
            blank_images.append(BlankImage(position, std))
        advance(1)
    return tuple(sorted(blank_images, key=lambda image: image.std))
