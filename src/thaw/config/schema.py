"""The typed schema of a recipe: every key, its type and its range. YAML in `conf/` holds the values."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic import StringConstraints as Text

Name = Annotated[str, Text(min_length=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Checksum = Annotated[str, Text(pattern=r"^(md5|sha1|sha256):[0-9a-f]+$")]
Interval = Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)]
Betas = Annotated[list[Fraction], Field(min_length=2, max_length=2)]


class Strict(BaseModel):
    """No unknown keys, no silent conversion ("5" is no number), no change after the check."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Captcha(Strict):
    kind: Literal["captcha"]
    name: Name
    characters: Annotated[str, Text(min_length=2, pattern=r"^[0-9A-Za-z]+$")]
    train: PositiveInt
    val: NonNegativeInt
    test: PositiveInt
    side: Annotated[int, Field(ge=32, le=512)]
    draw_seed: NonNegativeInt
    image_size: Annotated[int, Field(ge=16, le=2048)] | None
    crop: Annotated[float, Field(gt=0, le=1)] | None


class Archive(Strict):
    """`url` may be kaggle://competitions/NAME, which has no checksum. `folder` is where the data lie inside; `inner`
    names an archive in the archive."""

    url: Name
    checksum: Checksum | None
    folder: str
    inner: Name | None = None


class SplitFolders(Strict):
    train: Name
    val: Name | None
    test: Name | None


class SplitFractions(Strict):
    val: Fraction
    test: Fraction


class Folder(Strict):
    kind: Literal["folder"]
    name: Name
    root: Name | None
    archive: Archive | None
    splits: SplitFolders
    fractions: SplitFractions
    per_class: PositiveInt | None = None
    exclude: list[Name] = []
    convert: Literal["cifar"] | None = None
    image_size: Annotated[int, Field(ge=16, le=2048)] | None
    crop: Annotated[float, Field(gt=0, le=1)] | None


class Table(Strict):
    kind: Literal["csv"]
    name: Name
    root: Name | None
    variant: Name | None
    archives: dict[Name, Archive]
    file: Name
    path_column: Name
    label_column: Name
    split_column: Name | None
    folder: str
    suffix: str
    unlabelled: Name | None
    fractions: SplitFractions
    per_class: PositiveInt | None
    image_size: Annotated[int, Field(ge=16, le=2048)] | None
    crop: Annotated[float, Field(gt=0, le=1)] | None


class Package(Strict):
    distribution: Name
    file: Name
    sha256: Name


class Data(Strict):
    cache: Name | None
    mirror: Annotated[str, Text(pattern=r"^(https?|file)://")] | None
    broken: Literal["error", "skip"]
    store_gib: NonNegativeFloat
    near_duplicates: bool


class Backbone(Strict):
    library: Literal["torchvision", "timm"]
    name: Name
    weights: Name
    package: Package | None
    memory_format: Literal["auto", "contiguous", "channels_last"]


class LinearHead(Strict):
    kind: Literal["linear"]
    dropout: Fraction


class Phase(Strict):
    """`epochs` are counted, `share` is a fraction of all epochs; a phase with neither takes what the others leave."""

    train: Annotated[list[Name], Field(min_length=1)]
    learning_rate: dict[Name, NonNegativeFloat]
    epochs: PositiveInt | None = None
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    batchnorm: Literal["eval"] = "eval"


class Strategy(Strict):
    name: Name
    start: Literal["source", "random"]
    phases: Annotated[dict[Name, Phase], Field(min_length=1)]


class Sgd(Strict):
    name: Literal["sgd"]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    decay_norms_and_biases: bool
    momentum: Fraction
    nesterov: bool


class Adam(Strict):
    name: Literal["adam", "adamw"]
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    decay_norms_and_biases: bool
    betas: Betas
    epsilon: PositiveFloat


class Constant(Strict):
    name: Literal["constant"]
    warmup_epochs: NonNegativeFloat


class Step(Strict):
    name: Literal["step"]
    warmup_epochs: NonNegativeFloat
    every_epochs: PositiveInt
    factor: Annotated[float, Field(gt=0, le=1)]


class Cosine(Strict):
    name: Literal["cosine"]
    warmup_epochs: NonNegativeFloat
    final: Probability


class OneCycle(Strict):
    name: Literal["one_cycle"]
    rise: Annotated[float, Field(gt=0, lt=1)]
    start_divisor: Annotated[float, Field(ge=1)]
    end_divisor: Annotated[float, Field(ge=1)]


class RandomResizedCrop(Strict):
    scale: Interval
    ratio: Interval
    centre: Annotated[float, Field(gt=0, le=1)] = 1.0


class HorizontalFlip(Strict):
    probability: Probability


class Rotation(Strict):
    degrees: Annotated[float, Field(ge=0, le=180)]


class ColourJitter(Strict):
    brightness: Probability
    contrast: Probability
    saturation: Probability
    hue: Annotated[float, Field(ge=0, le=0.5)]


class RandomErasing(Strict):
    probability: Probability


class Mixing(Strict):
    alpha: PositiveFloat


class Augment(Strict):
    """In the order in which they act."""

    policy: Literal["rand_augment", "trivial_augment"] | None = None
    random_resized_crop: RandomResizedCrop | None = None
    random_crop: bool = False
    horizontal_flip: HorizontalFlip | None = None
    rotation: Rotation | None = None
    colour_jitter: ColourJitter | None = None
    random_erasing: RandomErasing | None = None
    mixup: Mixing | None = None
    cutmix: Mixing | None = None


class EarlyStopping(Strict):
    patience: PositiveInt


class Trainer(Strict):
    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    label_smoothing: Fraction
    accumulate: PositiveInt
    clip_norm: PositiveFloat | None
    accelerator: Literal["auto", "cpu", "gpu"]
    devices: PositiveInt | Literal["auto"]
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed", "64-true"]
    deterministic: bool
    threads: PositiveInt | None
    workers: NonNegativeInt | None
    early_stopping: EarlyStopping | None


class Recipe(Strict):
    """A complete configuration: what `conf/` composes, checked."""

    dataset: Annotated[Captcha | Folder | Table, Field(discriminator="kind")]
    backbone: Backbone
    head: LinearHead
    strategy: Strategy
    optimizer: Annotated[Sgd | Adam, Field(discriminator="name")]
    scheduler: Annotated[Constant | Step | Cosine | OneCycle, Field(discriminator="name")]
    augment: Augment
    trainer: Trainer
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    output_dir: Name
    data: Data
    resume: Name | None

    def plain(self) -> dict[str, Any]:
        """Nested dicts, lists and scalars alone, as YAML, JSON and a checkpoint can hold them."""
        return self.model_dump(mode="json")
