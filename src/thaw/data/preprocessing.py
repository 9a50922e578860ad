"""How images are preprocessed, as pretrained weights expect it.

Preprocessing belongs to the weights, not to the data set: EfficientNet-Lite0 classifies 15 of 20 ImageNet images
correctly with the usual ImageNet mean and standard deviation, and 18 of 20 with its own.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Decoding = Literal["full", "scaled"]
MIN_SCALED_RATIO = 2  # of the sides of a JPEG that is decoded at a fraction of its size to the sides it is resized to


@dataclass(frozen=True)
class Preprocessing:
    """Resize the shorter side to `resize` pixels (with `squash`, both sides), crop `size` x `size` pixels from the
    center, scale to 0..1, subtract `mean` and divide by `std` (RGB).

    `decoding` says how files become pixels, so that a network keeps seeing what it was trained on:

    - `scaled`: a large JPEG is decoded at a fraction of its size, at least MIN_SCALED_RATIO times what it is resized
      to, and images are turned upright after they are resized.
    - `full`: every image is decoded at its own size, turned upright, and resized by Pillow. Version 0.2 and older.
    """

    size: int
    resize: int
    interpolation: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    squash: bool = False
    decoding: Decoding = "scaled"

    @property
    def min_decoded_side(self) -> int | None:
        """The pixels that both sides of a JPEG keep when it is decoded; None if it is decoded at its own size."""
        return MIN_SCALED_RATIO * self.resize if self.decoding == "scaled" else None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        values = dataclasses.asdict(self)
        return {key: list(value) if isinstance(value, tuple) else value for key, value in values.items()}

    def with_size(self, size: int | None, crop: float | None) -> Preprocessing:
        """Return a copy for `size` pixels and a center crop of the fraction `crop` of the shorter side; None keeps the
        weights' own value."""
        size = size or self.size
        crop_fraction = crop or self.size / self.resize
        return dataclasses.replace(self, size=size, resize=max(size, round(size / crop_fraction)))
