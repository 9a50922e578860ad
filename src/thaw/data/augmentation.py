"""Random changes of training images. Each takes its chance from the dice it is handed, so an image's augmentation is a
function of (seed, epoch, sample)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from torchvision.transforms.v2 import functional as F

CROP_TRIES = 10


@dataclass(frozen=True)
class Augmentation:
    """`scale` is the share of the area that a random crop keeps, `ratio` its width to height (Szegedy et al. 2015);
    None: the centre crop. `flip` is the probability of a mirror image."""

    scale: tuple[float, float] | None = None
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    flip: float = 0.0

    @property
    def is_empty(self) -> bool:
        return self.scale is None and self.flip == 0.0

    def apply(self, image: Tensor, size: int, dice: np.random.Generator) -> Tensor:
        """uint8 [3, size, size] from uint8 [3, height, width]."""
        if self.scale is None:
            image = F.center_crop(image, [size, size])
        else:
            top, left, height, width = _crop_box(image.shape[1], image.shape[2], self.scale, self.ratio, dice)
            image = F.resized_crop(image, top, left, height, width, [size, size], antialias=True)
        return F.horizontal_flip(image) if dice.random() < self.flip else image


def _crop_box(
    height: int, width: int, scale: tuple[float, float], ratio: tuple[float, float], dice: np.random.Generator
) -> tuple[int, int, int, int]:
    """Top, left, height, width of a random box inside; the centre where ten throws found none, as torchvision does."""
    for _ in range(CROP_TRIES):
        area = height * width * dice.uniform(*scale)
        aspect = math.exp(dice.uniform(math.log(ratio[0]), math.log(ratio[1])))
        box_width, box_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < box_width <= width and 0 < box_height <= height:
            return (
                int(dice.integers(height - box_height + 1)),
                int(dice.integers(width - box_width + 1)),
                box_height,
                box_width,
            )
    box_height, box_width = min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))
    return (height - box_height) // 2, (width - box_width) // 2, box_height, box_width
