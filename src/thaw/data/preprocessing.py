"""What source weights expect of an image. It belongs to the weights, not to the data set: EfficientNet-Lite0's weights
with the usual ImageNet mean and deviation name 15 of 20 ImageNet images, with their own 18."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

INTERPOLATIONS = {name.lower(): method for name, method in Image.Resampling.__members__.items()}


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to `resize` pixels (`squash`: both sides), crop `size` x `size` from the centre, scale
    to 0..1, subtract `mean`, divide by `std` (RGB)."""

    size: int
    resize: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    squash: bool = False

    def to_dict(self) -> dict[str, Any]:
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def with_size(self, size: int | None, crop: float | None) -> Preprocessing:
        """The same for `size` pixels and a centre crop that keeps the share `crop` of the shorter side; None keeps
        what the weights were trained with."""
        size = size or self.size
        crop_fraction = crop or self.size / self.resize
        return dataclasses.replace(self, size=size, resize=max(size, round(size / crop_fraction)))


def resize_image(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    """uint8 [height, width, 3]: what the centre crop, or a random one in training, is cut from."""
    width, height = image.size
    side = preprocessing.resize
    if preprocessing.squash:
        target_size = (side, side)
    elif width <= height:
        target_size = (side, max(side, int(side * height / width)))  # torchvision truncates the longer side
    else:
        target_size = (max(side, int(side * width / height)), side)
    if image.size != target_size:
        image = image.resize(target_size, INTERPOLATIONS[preprocessing.interpolation])
    return np.asarray(image)
