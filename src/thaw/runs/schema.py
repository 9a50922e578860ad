"""What the JSON files of runs and sweeps hold. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

MAX_JOBS = 1_000_000  # of a sweep
Probability = Annotated[float, Field(ge=0, le=1)]


class _Entries(BaseModel):
    """Entries of a JSON file. Versions of thaw add some, so unknown ones are kept."""

    model_config = ConfigDict(strict=True, extra="allow", allow_inf_nan=False)


class _Revision(_Entries):
    commit: str
    changed: bool


class _DataProblem(_Entries):
    kind: str


class _Correction(_Entries):
    count: NonNegativeInt
    sha256: str


class _Data(_Entries):
    fingerprint: str
    classes: NonNegativeInt
    images: dict[str, NonNegativeInt]
    decoding: Literal["full", "scaled"] = "full"  # version 0.2 and older wrote none
    skipped: dict[str, str] = {}
    leaks: dict[str, NonNegativeInt] = {}
    problems: list[_DataProblem] = []
    excluded: _Correction | None = None
    relabeled: _Correction | None = None


class _Hardware(_Entries):
    cpu: str
    cores: NonNegativeInt
    gpus: list[str]
    platform: str


class _Parameters(_Entries):
    total: NonNegativeInt
    trainable: NonNegativeInt


class _Part(_Entries):
    name: str
    trainable: bool
    learning_rate: float = 0.0
    weight_decay: float = 0.0
    batchnorm: str = ""
    parameters: str = ""


class _Phase(_Entries):
    name: str
    start: NonNegativeInt
    end: NonNegativeInt
    parts: list[_Part]
    schedule: Annotated[list[NonNegativeInt], Field(min_length=2, max_length=2)] | None = None


class _Resume(_Entries):
    time: str
    command: str = ""
    overrides: list[str] = []
    evaluates_only: bool = False


class _Probe(_Entries):
    method: str
    setting: dict[str, Any] = {}
    grid: dict[str, Any] = {}


class PrecisionEntry(_Entries):
    """The precision of a network, by Lightning's names: `frozen` of its first `num_frozen_stages` stages, `trained` of
    the rest, chosen for `accelerator`."""

    accelerator: Literal["cpu", "gpu"]
    trained: Literal["32-true", "16-mixed", "bf16-mixed", "64-true"]
    frozen: Literal["32-true", "16-mixed", "bf16-mixed", "64-true"]
    num_frozen_stages: NonNegativeInt


class _Summary(_Entries):
    dataset: str
    backbone: str
    strategy: str


class Record(_Entries):
    """The content of `run.json`, whatever the status."""

    status: Literal["running", "done", "failed", "interrupted", "pruned"]
    command: str = ""
    seed: int = 0
    summary: _Summary | None = None
    started: str = ""
    ended: str = ""
    error: str = ""
    pruned: str = ""
    versions: dict[str, str] = {}
    git: _Revision | None = None
    data: _Data | None = None
    source: dict[str, Any] | None = None
    parameters: _Parameters | None = None
    plan: Annotated[list[_Phase], Field(min_length=1)] | None = None
    features: list[dict[str, Any]] = []
    precision: PrecisionEntry | None = None
    hardware: _Hardware | None = None
    resumed: list[str | _Resume] = []
    probe: _Probe | None = None
    checkpoints: dict[str, str] = {}


class FinishedRecord(Record):
    """The content of `run.json` of a run that is done."""

    seed: int
    started: str
    versions: dict[str, str]
    data: _Data
    parameters: _Parameters
    hardware: _Hardware


class _SplitMetrics(_Entries):
    accuracy: Probability
    accuracy_ci95: Annotated[list[Probability], Field(min_length=2, max_length=2)] | None = None
    top5_accuracy: Probability | None = None
    macro_accuracy: Probability | None = None
    balanced_accuracy: Probability | None = None
    macro_f1: Probability | None = None
    auroc: Probability | None = None
    average_precision: Probability | None = None
    kappa: float | None = None
    loss: float
    count: PositiveInt | None = None
    groups: PositiveInt | None = None


class _TestMetrics(_SplitMetrics):
    accuracy_ci95: Annotated[list[Probability], Field(min_length=2, max_length=2)]
    count: PositiveInt


class _Timing(_Entries):
    wall_s: NonNegativeFloat
    train_s: NonNegativeFloat
    images_per_s: NonNegativeFloat
    cache_s: NonNegativeFloat


class Metrics(_Entries):
    """The content of `metrics.json`."""

    test: _TestMetrics
    val: _SplitMetrics | None = None
    test_without_leaks: _TestMetrics | None = None
    timing: _Timing


class SweepEntries(_Entries):
    """The content of `sweep.json`. `version` is missing in sweeps of version 0.2 and older."""

    arguments: list[str]
    jobs: Annotated[int, Field(ge=0, le=MAX_JOBS)] | None
    version: str | None = None


class _SearchTrialEntries(_Entries):
    values: dict[str, Any]
    n_completed: NonNegativeInt = Field(validation_alias=AliasChoices("n_completed", "known"))


class SearchEntries(_Entries):
    """The content of `search.json`; version 0.1 had other names for some entries."""

    seed: int
    random_trials: NonNegativeInt
    pruner: str
    n_startup_trials: NonNegativeInt = Field(validation_alias=AliasChoices("n_startup_trials", "spared_trials"))
    n_warmup_steps: NonNegativeInt = Field(validation_alias=AliasChoices("n_warmup_steps", "spared_epochs"))
    space: dict[str, str]
    trials: list[_SearchTrialEntries]
