"""The schema of the groups `strategy`, `optimizer` and `scheduler`: what trains when, and how fast."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from thaw.config.schema_base import Fraction, NonEmptyStr, Probability, StrictModel

ParameterKind = Literal["all", "norms", "biases"]
BatchNormMode = Literal["eval", "statistics", "train"]
Factor = Annotated[float, Field(gt=0, le=1)]


class PhaseConfig(StrictModel):
    """One phase of a strategy. A phase without `epochs` and `fraction` takes the epochs that the others leave.

    Stages are named as in `train`: all, backbone, head, a stage's name (layer3), first:N, last:N, from:STAGE, to:STAGE;
    N is a number or a percentage. If several keys of a mapping match a stage, the last one counts.
    """

    train: Annotated[list[NonEmptyStr], Field(min_length=1)]
    """Stages that train in the phase: all, backbone, head, layer3, first:N, last:50%, from:STAGE ..."""
    learning_rate: dict[NonEmptyStr, NonNegativeFloat]
    """Factor of `optimizer.learning_rate` for stages."""
    epochs: PositiveInt | None = None
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

    name: NonEmptyStr
    """Name of the strategy in run directories and reports."""
    init: Literal["pretrained", "random"]
    """Initial weights of the backbone."""
    phases: Annotated[dict[NonEmptyStr, PhaseConfig], Field(min_length=1)]
    """Phases by name, in the order in which they run."""
    l2_sp: NonNegativeFloat = 0.0
    """Strength of L2-SP (Li et al. 2018), the penalty on the distance of trained backbone weights to the pretrained
    ones; it replaces their weight decay. 0: off."""


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
    step_size: PositiveInt
    """Epochs after which the learning rate is multiplied by `gamma`."""
    gamma: Factor
    """Factor of the learning rate."""


class MultiStepSchedule(WarmupSchedule):
    """The learning rate times `gamma` after each milestone (torch's MultiStepLR)."""

    name: Literal["multi_step"]
    """Kind of schedule: a factor after each milestone."""
    milestones: Annotated[list[PositiveInt], Field(min_length=1)]
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
    patience: NonNegativeInt
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
