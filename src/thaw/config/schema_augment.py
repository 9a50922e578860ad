"""The schema of the group `augment`: random changes of train images."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat

from thaw.config.schema_base import CropFraction, Interval, Probability, StrictModel


class RandomResizedCropConfig(StrictModel):
    """A random part of the image, resized to the network's input."""

    scale: Interval
    """Lowest and highest fraction of the image's area that is kept: 0 < low <= high <= 1."""
    ratio: Interval
    """Lowest and highest ratio of width to height: 0 < low <= high."""
    center: CropFraction = 1.0
    """Fraction of the side of the crop that is kept around its center, after all geometric changes."""


class HorizontalFlipConfig(StrictModel):
    """A mirror image."""

    probability: Probability
    """Probability of the mirror image."""


class RotationConfig(StrictModel):
    """A rotation by a random angle."""

    degrees: Annotated[float, Field(ge=0, le=180)]
    """Largest angle in either direction, in degrees."""


class ColorJitterConfig(StrictModel):
    """Random changes of color (torchvision's ColorJitter)."""

    brightness: Probability
    """Largest relative change of brightness."""
    contrast: Probability
    """Largest relative change of contrast."""
    saturation: Probability
    """Largest relative change of saturation."""
    hue: Annotated[float, Field(ge=0, le=0.5)]
    """Largest change of hue, as a fraction of the color circle."""


class RandomErasingConfig(StrictModel):
    """A random rectangle is erased."""

    probability: Probability
    """Probability of erasing."""


class MixingConfig(StrictModel):
    """Two images of a batch are mixed."""

    alpha: PositiveFloat
    """Parameter of the Beta distribution from which the fraction of the second image is drawn."""


class AugmentConfig(StrictModel):
    """The changes, in the order in which they are applied; null leaves one out."""

    policy: Literal["rand_augment", "trivial_augment"] | None = None
    """Automatic augmentation with torchvision's defaults: RandAugment (Cubuk et al. 2020) or TrivialAugment (Mueller
    and Hutter 2021)."""
    random_resized_crop: RandomResizedCropConfig | None = None
    """A random part of the image, resized to the network's input."""
    random_crop: bool = False
    """Whether to resize the image and crop it at a random place, instead of at the center."""
    horizontal_flip: HorizontalFlipConfig | None = None
    """Mirror images."""
    rotation: RotationConfig | None = None
    """Rotation by a random angle."""
    color_jitter: ColorJitterConfig | None = None
    """Random changes of brightness, contrast, saturation and hue."""
    random_erasing: RandomErasingConfig | None = None
    """Erasing of a random rectangle."""
    mixup: MixingConfig | None = None
    """Mixup (Zhang et al. 2018): a weighted mean of two images and their labels."""
    cutmix: MixingConfig | None = None
    """CutMix (Yun et al. 2019): a rectangle of another image. With `mixup` one of the two is drawn for each batch."""
