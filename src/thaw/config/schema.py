"""The typed schema of a recipe: every key, its type, its range and its meaning. YAML in `conf/` holds the values."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat
from pydantic import StringConstraints as Text

from thaw.config.schema_dataset import (
    Activation,
    Archive,
    CaptchaDatasetConfig,
    Count,
    CsvDatasetConfig,
    DatasetConfig,
    FolderDatasetConfig,
    Fraction,
    Initialization,
    NonEmptyStr,
    PathStr,
    ReplacedLayers,
    Seed,
    SplitFolders,
    SplitFractions,
    StrictModel,
)
from thaw.config.schema_groups import (
    AugmentConfig,
    BackboneConfig,
    BatchNormMode,
    ColorJitterConfig,
    ConstantSchedule,
    CosineHeadConfig,
    CosineSchedule,
    HeadConfig,
    HorizontalFlipConfig,
    LinearHeadConfig,
    MixingConfig,
    MlpHeadConfig,
    MultiStepSchedule,
    OneCycleSchedule,
    OptimizerConfig,
    ParameterKind,
    PhaseConfig,
    PlateauSchedule,
    PolynomialSchedule,
    RandomErasingConfig,
    RandomResizedCropConfig,
    RotationConfig,
    SchedulerConfig,
    SourceRowsHeadConfig,
    StepSchedule,
    StrategyConfig,
    WeightsPackage,
)

__all__ = [
    "Activation",
    "Archive",
    "AugmentConfig",
    "AveragingConfig",
    "BackboneConfig",
    "BatchNormMode",
    "CaptchaDatasetConfig",
    "ColorJitterConfig",
    "ConstantSchedule",
    "CosineHeadConfig",
    "CosineSchedule",
    "CsvDatasetConfig",
    "DataConfig",
    "DatasetConfig",
    "EMAConfig",
    "EarlyStoppingConfig",
    "FeatureCacheConfig",
    "FolderDatasetConfig",
    "HeadConfig",
    "HorizontalFlipConfig",
    "Initialization",
    "LinearHeadConfig",
    "MixingConfig",
    "MlpHeadConfig",
    "MultiStepSchedule",
    "OneCycleSchedule",
    "OptimizerConfig",
    "ParameterKind",
    "PhaseConfig",
    "PlateauSchedule",
    "PolynomialSchedule",
    "RandomErasingConfig",
    "RandomResizedCropConfig",
    "Recipe",
    "ReplacedLayers",
    "RotationConfig",
    "SWAConfig",
    "SchedulerConfig",
    "SourceRowsHeadConfig",
    "SplitFolders",
    "SplitFractions",
    "StepSchedule",
    "StrategyConfig",
    "StrictModel",
    "TestTimeAugmentation",
    "TrainerConfig",
    "WeightsPackage",
]
TestTimeAugmentation = Literal["none", "flip", "five_crop", "ten_crop"]


class DataConfig(StrictModel):
    """Where data are stored and which images are used."""

    cache_dir: PathStr | None
    """Folder of data sets, weights and decoded images; null: $THAW_CACHE, or the user's cache folder."""
    mirror: Annotated[str, Text(pattern=r"^(https?|file)://")] | None
    """Folder in which archives and weights are looked for first: http(s):// or file://; null: none."""
    broken: Literal["error", "skip"]
    """Images that cannot be decoded: error names them and stops; skip leaves them out, counts and names them."""
    store_gib: NonNegativeFloat
    """Largest size on disk of the decoded images of one data set, in GiB; 0: decode in every epoch."""
    near_duplicates: bool
    """Whether to search different splits for copies: resized, recompressed, mirrored or slightly cropped images."""
    train_per_class: Count | None = None
    """Largest number of train images of each class; null: all. sweep=images_per_class shows how accuracy grows with
    it."""
    group_leak: Literal["error", "warn"] = "error"
    """Groups of which a data set's own splits have images in train or val and in test: error names them and stops; warn
    trains and counts these test images."""
    exclude: PathStr | None = None
    """CSV file with a column `path`, relative to the root of the data set: these images are left out; all
    others keep their splits; null: none. thaw audit writes one."""
    relabel: PathStr | None = None
    """CSV file with columns `path` and `label`: these images get these labels and keep their splits; null:
    none. thaw audit writes suggestions."""


class FeatureCacheConfig(StrictModel):
    """The cache of the outputs of frozen stages."""

    mode: Literal["auto", "off", "require"]
    """auto: cache where it is exact and saves time; off: run every stage in every epoch; require: stop with the reason
    if something cannot be cached."""
    views: Annotated[int, Field(gt=0, le=1000)] | None
    """Augmented views of each train image that are cached. null: only what is exact, which is one view without
    augmentation and two with mirror images alone; other augmentation is drawn in every epoch and not cached."""
    gib: PositiveFloat
    """Largest size on disk of all feature caches together, in GiB; the least recently used are deleted first."""


class EarlyStoppingConfig(StrictModel):
    """When a training ends early."""

    patience: Count
    """Epochs without a better validation accuracy after which the training ends."""


class EMAConfig(StrictModel):
    """Exponential moving average of the weights over steps."""

    kind: Literal["ema"]
    """Kind of average: exponential moving average over steps."""
    decay: Annotated[float, Field(gt=0, lt=1)] = 0.999
    """Weight of the average in each update."""


class SWAConfig(StrictModel):
    """Stochastic weight averaging: the mean of the weights of the last epochs, with a learning rate that stays high."""

    kind: Literal["swa"]
    """Kind of average: mean over the last epochs."""
    start: Fraction = 0.75
    """Fraction of the epochs after which averaging starts."""

    def compute_first_epoch(self, epochs: int) -> int:
        """Return the first of `epochs`, counted from 0, whose weights are averaged."""
        return math.ceil(round(self.start * epochs, 6))


AveragingConfig = Annotated[EMAConfig | SWAConfig, Field(discriminator="kind")]


class TrainerConfig(StrictModel):
    """How long and on which hardware the network is trained."""

    epochs: Annotated[int, Field(gt=0, le=100_000)]
    """Epochs of the whole training, all phases together."""
    batch_size: Annotated[int, Field(ge=2, le=65536)]
    """Images of a step on each device."""
    label_smoothing: Fraction
    """Label smoothing of the cross-entropy loss."""
    accumulate_grad_batches: Annotated[int, Field(gt=0, le=65536)]
    """Batches of an optimizer step. Each image of a step counts the same; the last step of an epoch may have fewer
    batches."""
    gradient_clip_val: PositiveFloat | None
    """Largest norm of all gradients together; null: no limit."""
    accelerator: Literal["auto", "cpu", "gpu"]
    """Hardware; auto: a GPU if there is one."""
    parallel: Literal["auto", "ddp", "fsdp"] = "auto"
    """What several devices share. ddp: the images of each step; fsdp: also weights, gradients and optimizer state;
    auto: ddp if `devices` is above 1."""
    devices: Annotated[int, Field(gt=0, le=1024)] | Literal["auto"]
    """Devices of each node, one process each. auto: one; with parallel ddp or fsdp all GPUs, or as many as torchrun or
    srun started."""
    num_nodes: Annotated[int, Field(gt=0, le=1024)] | Literal["auto"] = "auto"
    """Machines. auto: one; with parallel ddp or fsdp as many as torchrun or srun started."""
    sync_batchnorm: bool = False
    """Whether BatchNorm uses the images of all GPUs in training; false: those of its own GPU, with statistics averaged
    after each epoch."""
    precision: Literal["auto", "32-true", "16-mixed", "bf16-mixed", "64-true"]
    """Precision of the computation. auto: bf16-mixed on a GPU that supports it, 16-mixed on others; on a CPU with bf16
    instructions bf16 for frozen stages and for training, each if it was measured to be at least 1.2 times as fast,
    otherwise 32-true."""
    deterministic: bool
    """Whether every run with the same recipe gives the same bits."""
    threads: Annotated[int, Field(gt=0, le=1024)] | None
    """CPU threads of a step; null: one for each core."""
    num_workers: Annotated[int, Field(ge=0, le=256)] | None
    """Processes that load batches; null: none on a CPU, up to 8 with a GPU."""
    early_stopping: EarlyStoppingConfig | None
    """When to end the training early, for example {patience: 5}; null: never."""
    averaging: AveragingConfig | None = None
    """Average of the weights, used for validation, best.ckpt and predictions; running statistics of BatchNorm are
    averaged too. {kind: ema, decay: 0.999}: over steps; {kind: swa, start: 0.75}: over the last quarter of the epochs;
    null: none."""
    class_balance: Literal["none", "weights", "sampling"] = "none"
    """How unequal classes are balanced in training. weights: weights of the loss by inverse frequency; sampling: every
    class is drawn equally often."""
    test_time_augmentation: TestTimeAugmentation = "none"
    """Views of an image whose final predictions are averaged. flip: the mirror image too, unless mirroring changes the
    class; five_crop: corners and center; ten_crop: both. Validation after each epoch uses one view."""


class Recipe(StrictModel):
    """A complete, validated configuration."""

    dataset: DatasetConfig
    """The images and their classes."""
    backbone: BackboneConfig
    """The network and its source weights."""
    head: HeadConfig
    """The layers that replace the last layers of the source network."""
    strategy: StrategyConfig
    """How the network is initialized and what trains in which phase."""
    optimizer: OptimizerConfig
    """The optimizer."""
    scheduler: SchedulerConfig
    """The learning rate during a phase."""
    augment: AugmentConfig
    """Random changes of train images."""
    trainer: TrainerConfig
    """How long and on which hardware the network is trained."""
    seed: Seed
    """Seed of initial weights, order of batches, augmentation and the images of `data.train_per_class`.
    `dataset.split_seed` draws splits; nothing else is random."""
    folds: Annotated[int, Field(ge=2, le=1000)] | None = None
    """Parts into which all images are cut, so that each image is tested once over all parts; splits of the data set
    itself are put aside. null: no cross-validation."""
    fold: Annotated[int, Field(ge=0, lt=1000)] | None = None
    """The part, counted from 0, whose images are the test images of this run; null: there are no folds."""
    output_dir: PathStr
    """Folder in which run directories are created."""
    data: DataConfig
    """Where data are stored and which images are used."""
    feature_cache: FeatureCacheConfig = Field(
        default_factory=lambda: FeatureCacheConfig(mode="auto", views=None, gib=50)
    )
    """The cache of the outputs of frozen stages."""
    resume: PathStr | None
    """Directory of a run, which continues with its own recipe; only places, hardware and `trainer.epochs` may be set
    then."""
    notes: list[NonEmptyStr] = Field(default_factory=list)
    """What a reader of the results must know; kept with them and printed next to them."""

    def to_dict(self) -> dict[str, Any]:
        """Return nested dicts, lists and scalars, as YAML, JSON and checkpoints hold them."""
        return self.model_dump(mode="json")
