"""The typed schema of a recipe: every key, its type and its range. YAML in `conf/` holds the values."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic import StringConstraints as Text

Name = Annotated[str, Text(min_length=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Checksum = Annotated[str, Text(pattern=r"^(md5|sha1|sha256):[0-9a-f]+$")]
Interval = Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)]
Replaced = Literal["last", "classifier"]
Initialisation = Literal["torch", "xavier", "kaiming", "zero"]
Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh"]


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
    train_per_class: PositiveInt | None = None


class Cache(Strict):
    """Of what frozen stages give. `views`: augmented views of each train image; null: one where nothing is augmented,
    two where images are mirrored and nothing else, none otherwise. `gib`: the most that all caches may take of the
    disk."""

    mode: Literal["auto", "off", "require"]
    views: PositiveInt | None
    gib: PositiveFloat


class Backbone(Strict):
    library: Literal["torchvision", "timm"]
    name: Name
    weights: Name
    package: Package | None
    memory_format: Literal["auto", "contiguous", "channels_last"]


class LinearHead(Strict):
    kind: Literal["linear"]
    dropout: Fraction
    replaces: Replaced = "last"
    initialisation: Initialisation = "torch"


class MlpHead(Strict):
    kind: Literal["mlp"]
    hidden: Annotated[list[PositiveInt], Field(min_length=1)]
    activation: Activation
    dropout: Fraction
    replaces: Replaced
    initialisation: Initialisation


class CosineHead(Strict):
    """Directions of length 0 have no gradient: no `zero` among the initialisations."""

    kind: Literal["cosine"]
    scale: PositiveFloat
    learn_scale: bool
    dropout: Fraction
    replaces: Replaced
    initialisation: Literal["torch", "xavier", "kaiming"]


class SourceRowsHead(Strict):
    """`rows`: a source class by class, or null for none."""

    kind: Literal["source_rows"]
    rows: dict[Name, Name | None]
    rest: Initialisation
    dropout: Fraction
    replaces: Replaced


Head = Annotated[LinearHead | MlpHead | CosineHead | SourceRowsHead, Field(discriminator="kind")]


Kind = Literal["all", "norms", "biases"]
BatchNorm = Literal["eval", "statistics", "train"]


class Phase(Strict):
    """`epochs` are counted, `share` is a fraction of all epochs; a phase with neither takes what the others leave.

    Keys of the mappings are words for stages, as in `train`; of several that mean a stage the last one counts.
    `unfreeze`: stages that join one after another, from the output to the input, as evenly as the epochs allow.
    `learning_rate`, `weight_decay`: multipliers; `layer_decay`: a further factor for each stage away from the head.
    `parameters`: which of a trained stage's parameters train. `batchnorm`: `eval` uses the running statistics and
    leaves them; `statistics` uses the batch's and updates the running ones, with weight and bias frozen; `train`
    trains those too. Without a word, BatchNorm trains where its stage does.
    """

    train: Annotated[list[Name], Field(min_length=1)]
    learning_rate: dict[Name, NonNegativeFloat]
    epochs: PositiveInt | None = None
    share: Annotated[float, Field(gt=0, lt=1)] | None = None
    unfreeze: list[Name] = []
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    parameters: dict[Name, Kind] = {}
    weight_decay: dict[Name, NonNegativeFloat] = {}
    batchnorm: dict[Name, BatchNorm] = {}
    restart: list[Literal["optimizer", "scheduler"]] = []


class Strategy(Strict):
    """`source_pull`: L2-SP (Li et al. 2018), the strength of a pull of trained backbone weights towards the source's;
    it takes the place of weight decay there."""

    name: Name
    start: Literal["source", "random"]
    phases: Annotated[dict[Name, Phase], Field(min_length=1)]
    source_pull: NonNegativeFloat = 0.0


class Optimizer(Strict):
    """`name` is one of torch.optim, in any case, or the path of a class, module.Class. `arguments` go to its
    constructor, lists as tuples, beside those that thaw gives."""

    name: Name
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    decay_norms_and_biases: bool
    arguments: dict[Name, Any]


class Schedule(Strict):
    name: str
    interval: Literal["step", "epoch"]


class WarmedSchedule(Schedule):
    warmup_epochs: NonNegativeFloat


class Constant(WarmedSchedule):
    name: Literal["constant"]


class Step(WarmedSchedule):
    name: Literal["step"]
    every_epochs: PositiveInt
    factor: Annotated[float, Field(gt=0, le=1)]


class MultiStep(WarmedSchedule):
    name: Literal["multi_step"]
    milestones: Annotated[list[PositiveInt], Field(min_length=1)]
    factor: Annotated[float, Field(gt=0, le=1)]


class Cosine(WarmedSchedule):
    name: Literal["cosine"]
    final: Probability


class Polynomial(WarmedSchedule):
    name: Literal["polynomial"]
    power: PositiveFloat
    final: Probability


class Plateau(WarmedSchedule):
    name: Literal["plateau"]
    patience: NonNegativeInt
    factor: Annotated[float, Field(gt=0, lt=1)]
    threshold: Fraction
    floor: Probability


class OneCycle(Schedule):
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


class ExponentialAverage(Strict):
    kind: Literal["ema"]
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999


class EpochAverage(Strict):
    kind: Literal["swa"]
    start: Fraction = 0.75

    def first_epoch(self, epochs: int) -> int:
        """The first, counted from 0, of `epochs` that joins the average."""
        return math.ceil(round(self.start * epochs, 6))


Averaging = Annotated[ExponentialAverage | EpochAverage, Field(discriminator="kind")]
TestTimeAugmentation = Literal["none", "flip", "five_crop", "ten_crop"]


class Trainer(Strict):
    """`parallel` says what the processes of a run on several devices share out: `ddp` the images of each step, `fsdp`
    also the weights, gradients and the optimizer's state; `auto` is ddp. With a word for it `devices: auto` is all GPUs
    of the machine, or as many processes as torchrun or srun has started there, and `nodes: auto` their machines."""

    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    label_smoothing: Fraction
    accumulate: PositiveInt
    clip_norm: PositiveFloat | None
    accelerator: Literal["auto", "cpu", "gpu"]
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    devices: PositiveInt | Literal["auto"]
    nodes: PositiveInt | Literal["auto"] = "auto"
    sync_batchnorm: bool = False
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed", "64-true"]
    deterministic: bool
    threads: PositiveInt | None
    workers: NonNegativeInt | None
    early_stopping: EarlyStopping | None
    averaging: Averaging | None = None
    class_balance: Literal["none", "weights", "sampling"] = "none"
    test_time_augmentation: TestTimeAugmentation = "none"


class Recipe(Strict):
    """A complete configuration: what `conf/` composes, checked."""

    dataset: Annotated[Captcha | Folder | Table, Field(discriminator="kind")]
    backbone: Backbone
    head: Head
    strategy: Strategy
    optimizer: Optimizer
    scheduler: Annotated[
        Constant | Step | MultiStep | Cosine | Polynomial | Plateau | OneCycle, Field(discriminator="name")
    ]
    augment: Augment
    trainer: Trainer
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    output_dir: Name
    data: Data
    cache: Cache = Cache(mode="auto", views=None, gib=50)
    resume: Name | None

    def plain(self) -> dict[str, Any]:
        """Nested dicts, lists and scalars alone, as YAML, JSON and a checkpoint can hold them."""
        return self.model_dump(mode="json")
