"""The typed schema of a recipe: every key, its type and its range. YAML in `conf/` holds the values."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from pydantic import StringConstraints as Text

NonEmptyStr = Annotated[str, Text(min_length=1)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Checksum = Annotated[str, Text(pattern=r"^(md5|sha1|sha256):[0-9a-f]+$")]
Interval = Annotated[list[PositiveFloat], Field(min_length=2, max_length=2)]
ReplacedLayers = Literal["last", "classifier"]
Initialization = Literal["torch", "xavier", "kaiming", "zero"]
Activation = Literal["relu", "leaky_relu", "gelu", "silu", "tanh"]


class StrictModel(BaseModel):
    """No unknown keys, no silent conversion ("5" is no number), no change after the check."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class CaptchaDatasetConfig(StrictModel):
    kind: Literal["captcha"]
    name: NonEmptyStr
    characters: Annotated[str, Text(min_length=2, pattern=r"^[0-9A-Za-z]+$")]
    train: PositiveInt
    val: NonNegativeInt
    test: PositiveInt
    side: Annotated[int, Field(ge=32, le=512)]
    draw_seed: NonNegativeInt
    image_size: Annotated[int, Field(ge=16, le=2048)] | None
    crop: Annotated[float, Field(gt=0, le=1)] | None


class Archive(StrictModel):
    """`url` may be kaggle://competitions/NAME, which has no checksum. `folder` is where the data lie inside; `inner`
    names an archive in the archive."""

    url: NonEmptyStr
    checksum: Checksum | None
    folder: str
    inner: NonEmptyStr | None = None


class SplitFolders(StrictModel):
    train: NonEmptyStr
    val: NonEmptyStr | None
    test: NonEmptyStr | None


class SplitFractions(StrictModel):
    val: Fraction
    test: Fraction


class FolderDatasetConfig(StrictModel):
    kind: Literal["folder"]
    name: NonEmptyStr
    root: NonEmptyStr | None
    archive: Archive | None
    splits: SplitFolders
    fractions: SplitFractions
    per_class: PositiveInt | None = None
    exclude: list[NonEmptyStr] = []
    convert: Literal["cifar"] | None = None
    image_size: Annotated[int, Field(ge=16, le=2048)] | None
    crop: Annotated[float, Field(gt=0, le=1)] | None


class CsvDatasetConfig(StrictModel):
    kind: Literal["csv"]
    name: NonEmptyStr
    root: NonEmptyStr | None
    variant: NonEmptyStr | None
    archives: dict[NonEmptyStr, Archive]
    file: NonEmptyStr
    path_column: NonEmptyStr
    label_column: NonEmptyStr
    split_column: NonEmptyStr | None
    folder: str
    suffix: str
    unlabelled: NonEmptyStr | None
    fractions: SplitFractions
    per_class: PositiveInt | None
    image_size: Annotated[int, Field(ge=16, le=2048)] | None
    crop: Annotated[float, Field(gt=0, le=1)] | None


class WeightsPackage(StrictModel):
    distribution: NonEmptyStr
    file: NonEmptyStr
    sha256: NonEmptyStr


class DataConfig(StrictModel):
    cache_dir: NonEmptyStr | None
    mirror: Annotated[str, Text(pattern=r"^(https?|file)://")] | None
    broken: Literal["error", "skip"]
    store_gib: NonNegativeFloat
    near_duplicates: bool
    train_per_class: PositiveInt | None = None


class FeatureCacheConfig(StrictModel):
    """Of what frozen stages give. `views`: augmented views of each train image; null: one where nothing is augmented,
    two where images are mirrored and nothing else, none otherwise. `gib`: the most that all caches may take of the
    disk."""

    mode: Literal["auto", "off", "require"]
    views: PositiveInt | None
    gib: PositiveFloat


class BackboneConfig(StrictModel):
    library: Literal["torchvision", "timm"]
    name: NonEmptyStr
    weights: NonEmptyStr
    package: WeightsPackage | None
    memory_format: Literal["auto", "contiguous", "channels_last"]


class LinearHeadConfig(StrictModel):
    kind: Literal["linear"]
    dropout: Fraction
    replaces: ReplacedLayers = "last"
    initialization: Initialization = "torch"


class MlpHeadConfig(StrictModel):
    kind: Literal["mlp"]
    hidden: Annotated[list[PositiveInt], Field(min_length=1)]
    activation: Activation
    dropout: Fraction
    replaces: ReplacedLayers
    initialization: Initialization


class CosineHeadConfig(StrictModel):
    """Directions of length 0 have no gradient: no `zero` among the initialisations."""

    kind: Literal["cosine"]
    scale: PositiveFloat
    learn_scale: bool
    dropout: Fraction
    replaces: ReplacedLayers
    initialization: Literal["torch", "xavier", "kaiming"]


class SourceRowsHeadConfig(StrictModel):
    """`rows`: a source class by class, or null for none."""

    kind: Literal["source_rows"]
    rows: dict[NonEmptyStr, NonEmptyStr | None]
    rest: Initialization
    dropout: Fraction
    replaces: ReplacedLayers


HeadConfig = Annotated[
    LinearHeadConfig | MlpHeadConfig | CosineHeadConfig | SourceRowsHeadConfig, Field(discriminator="kind")
]


ParameterKind = Literal["all", "norms", "biases"]
BatchNormMode = Literal["eval", "statistics", "train"]


class PhaseConfig(StrictModel):
    """`epochs` are counted, `share` is a fraction of all epochs; a phase with neither takes what the others leave.

    Keys of the mappings are words for stages, as in `train`; of several that mean a stage the last one counts.
    `unfreeze`: stages that join one after another, from the output to the input, as evenly as the epochs allow.
    `learning_rate`, `weight_decay`: multipliers; `layer_decay`: a further factor for each stage away from the head.
    `parameters`: which of a trained stage's parameters train. `batchnorm`: `eval` uses the running statistics and
    leaves them; `statistics` uses the batch's and updates the running ones, with weight and bias frozen; `train`
    trains those too. Without a word, BatchNorm trains where its stage does.
    """

    train: Annotated[list[NonEmptyStr], Field(min_length=1)]
    learning_rate: dict[NonEmptyStr, NonNegativeFloat]
    epochs: PositiveInt | None = None
    fraction: Annotated[float, Field(gt=0, lt=1)] | None = None
    unfreeze: list[NonEmptyStr] = []
    layer_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    parameters: dict[NonEmptyStr, ParameterKind] = {}
    weight_decay: dict[NonEmptyStr, NonNegativeFloat] = {}
    batchnorm: dict[NonEmptyStr, BatchNormMode] = {}
    restart: list[Literal["optimizer", "scheduler"]] = []


class StrategyConfig(StrictModel):
    """`l2_sp`: L2-SP (Li et al. 2018), the strength of a pull of trained backbone weights towards the source's;
    it takes the place of weight decay there."""

    name: NonEmptyStr
    init: Literal["pretrained", "random"]
    phases: Annotated[dict[NonEmptyStr, PhaseConfig], Field(min_length=1)]
    l2_sp: NonNegativeFloat = 0.0


class OptimizerConfig(StrictModel):
    """`name` is one of torch.optim, in any case, or the path of a class, module.Class. `arguments` go to its
    constructor, lists as tuples, beside those that thaw gives."""

    name: NonEmptyStr
    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat
    decay_norms_and_biases: bool
    arguments: dict[NonEmptyStr, Any]


class Schedule(StrictModel):
    name: str
    interval: Literal["step", "epoch"]


class WarmupSchedule(Schedule):
    warmup_epochs: NonNegativeFloat


class ConstantSchedule(WarmupSchedule):
    name: Literal["constant"]


class StepSchedule(WarmupSchedule):
    name: Literal["step"]
    step_size: PositiveInt
    gamma: Annotated[float, Field(gt=0, le=1)]


class MultiStepSchedule(WarmupSchedule):
    name: Literal["multi_step"]
    milestones: Annotated[list[PositiveInt], Field(min_length=1)]
    gamma: Annotated[float, Field(gt=0, le=1)]


class CosineSchedule(WarmupSchedule):
    name: Literal["cosine"]
    min_lr_ratio: Probability


class PolynomialSchedule(WarmupSchedule):
    name: Literal["polynomial"]
    power: PositiveFloat
    min_lr_ratio: Probability


class PlateauSchedule(WarmupSchedule):
    name: Literal["plateau"]
    patience: NonNegativeInt
    gamma: Annotated[float, Field(gt=0, lt=1)]
    threshold: Fraction
    min_lr_ratio: Probability


class OneCycleSchedule(Schedule):
    name: Literal["one_cycle"]
    pct_start: Annotated[float, Field(gt=0, lt=1)]
    div_factor: Annotated[float, Field(ge=1)]
    final_div_factor: Annotated[float, Field(ge=1)]


class RandomResizedCropConfig(StrictModel):
    scale: Interval
    ratio: Interval
    center: Annotated[float, Field(gt=0, le=1)] = 1.0


class HorizontalFlipConfig(StrictModel):
    probability: Probability


class RotationConfig(StrictModel):
    degrees: Annotated[float, Field(ge=0, le=180)]


class ColorJitterConfig(StrictModel):
    brightness: Probability
    contrast: Probability
    saturation: Probability
    hue: Annotated[float, Field(ge=0, le=0.5)]


class RandomErasingConfig(StrictModel):
    probability: Probability


class MixingConfig(StrictModel):
    alpha: PositiveFloat


class AugmentConfig(StrictModel):
    """In the order in which they act."""

    policy: Literal["rand_augment", "trivial_augment"] | None = None
    random_resized_crop: RandomResizedCropConfig | None = None
    random_crop: bool = False
    horizontal_flip: HorizontalFlipConfig | None = None
    rotation: RotationConfig | None = None
    color_jitter: ColorJitterConfig | None = None
    random_erasing: RandomErasingConfig | None = None
    mixup: MixingConfig | None = None
    cutmix: MixingConfig | None = None


class EarlyStoppingConfig(StrictModel):
    patience: PositiveInt


class EMAConfig(StrictModel):
    kind: Literal["ema"]
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999


class SWAConfig(StrictModel):
    kind: Literal["swa"]
    start: Fraction = 0.75

    def compute_first_epoch(self, epochs: int) -> int:
        """The first, counted from 0, of `epochs` that joins the average."""
        return math.ceil(round(self.start * epochs, 6))


AveragingConfig = Annotated[EMAConfig | SWAConfig, Field(discriminator="kind")]
TestTimeAugmentation = Literal["none", "flip", "five_crop", "ten_crop"]


class TrainerConfig(StrictModel):
    """`parallel` says what the processes of a run on several devices share out: `ddp` the images of each step, `fsdp`
    also the weights, gradients and the optimizer's state; `auto` is ddp. With a word for it `devices: auto` is all GPUs
    of the machine, or as many processes as torchrun or srun has started there, and `nodes: auto` their machines."""

    epochs: PositiveInt
    batch_size: Annotated[int, Field(ge=2)]
    label_smoothing: Fraction
    accumulate_grad_batches: PositiveInt
    gradient_clip_val: PositiveFloat | None
    accelerator: Literal["auto", "cpu", "gpu"]
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    devices: PositiveInt | Literal["auto"]
    num_nodes: PositiveInt | Literal["auto"] = "auto"
    sync_batchnorm: bool = False
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed", "64-true"]
    deterministic: bool
    threads: PositiveInt | None
    num_workers: NonNegativeInt | None
    early_stopping: EarlyStoppingConfig | None
    averaging: AveragingConfig | None = None
    class_balance: Literal["none", "weights", "sampling"] = "none"
    test_time_augmentation: TestTimeAugmentation = "none"


class Recipe(StrictModel):
    """A complete configuration: what `conf/` composes, checked."""

    dataset: Annotated[CaptchaDatasetConfig | FolderDatasetConfig | CsvDatasetConfig, Field(discriminator="kind")]
    backbone: BackboneConfig
    head: HeadConfig
    strategy: StrategyConfig
    optimizer: OptimizerConfig
    scheduler: Annotated[
        ConstantSchedule
        | StepSchedule
        | MultiStepSchedule
        | CosineSchedule
        | PolynomialSchedule
        | PlateauSchedule
        | OneCycleSchedule,
        Field(discriminator="name"),
    ]
    augment: AugmentConfig
    trainer: TrainerConfig
    seed: Annotated[int, Field(ge=0, lt=2**32)]
    output_dir: NonEmptyStr
    data: DataConfig
    feature_cache: FeatureCacheConfig = FeatureCacheConfig(mode="auto", views=None, gib=50)
    resume: NonEmptyStr | None
    notes: list[NonEmptyStr] = []

    def to_dict(self) -> dict[str, Any]:
        """Nested dicts, lists and scalars alone, as YAML, JSON and a checkpoint can hold them."""
        return self.model_dump(mode="json")
