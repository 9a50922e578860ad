"""`thaw probe OVERRIDES`: what linear classifiers make of a frozen backbone's features; the best becomes a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.commands.table import Column, print_table
from thaw.commands.verbs import asks_for_help, interruptible, new_folder, number_of, one_recipe
from thaw.config.faults import DONE, Fault, UserFault, listing, nearest
from thaw.config.schema import Captcha, Folder, Recipe

if TYPE_CHECKING:
    from thaw.features.trial import Trial
    from thaw.training.probing import Probed

HELP = """thaw probe [key=value ...]

  On a frozen backbone's features, computed once: nearest centroid, k-NN, logistic regression, linear SVM, and a grid of
  linear heads trained at once. k, regularisation, and the best of all are chosen on the validation images: the highest
  accuracy; of equal ones the lowest cross-entropy, then the strongest regularisation. The best is left as a run, its
  linear classifier in the head, and is the only one that sees the test images. k-NN cannot become a head: it is in
  the table and takes no part in the choice.

    heads.learning_rates=3e-4,1e-3,3e-3,1e-2,3e-2,1e-1     of standardised features, by SGD with momentum and a cosine
    heads.weight_decays=0,1e-4,1e-3,1e-2,1e-1,1
    heads.seeds=3                                          starts of each combination
    heads.epochs=30
    out=DIR                                                the run directory; by default a new one in output_dir

    thaw probe dataset=hymenoptera
    thaw probe dataset=folder dataset.root=DIR backbone=resnet50

Other settings are those of python train.py, as far as they concern data, backbone and hardware.
Exit status: 0, or 2 where there is something for you to change."""
OWN = ("heads.learning_rates", "heads.weight_decays", "heads.seeds", "heads.epochs", "out")
AS_IT_IS = ("strategy=fixed", "head=linear")
OF_TRAINING = {
    "strategy": "a probe's features are frozen",
    "head": "a probe's head is linear",
    "optimizer": "a probe has its own",
    "scheduler": "a probe has its own",
    "augment": "a probe sees images as they are",
    "experiment": "it sets what a probe has no use for",
    "resume": "a probe is done in one go",
    "hydra": "a probe is one job",
}
OF_EPOCHS = (
    *("epochs", "label_smoothing", "accumulate", "clip_norm", "early_stopping", "averaging", "class_balance"),
    "test_time_augmentation",
)
OF_PROCESSES = ("parallel", "devices", "nodes", "sync_batchnorm")
Numbers = tuple[float, ...]


def run(arguments: Sequence[str]) -> int:
    """Probes as `arguments` say and returns the exit status.

    Raises:
        UserFault: where the settings are wrong, there is nothing to choose by, or data and weights cannot be had.
    """
    if asks_for_help(arguments):
        print(HELP)
        return DONE
    own = dict(one.split("=", 1) for one in arguments if one.split("=", 1)[0] in OWN and "=" in one)
    overrides = [one for one in arguments if one.split("=", 1)[0] not in own and one not in AS_IT_IS]
    if faults := [*_misspelt(overrides), *_of_no_use(overrides), *_wrong_numbers(own)]:
        raise UserFault("nothing was started.", faults)
    recipe = one_recipe("thaw probe", [*AS_IT_IS, *overrides])  # before torch is imported
    if faults := [*_nothing_to_choose_by(recipe)]:
        raise UserFault("a probe chooses on validation images.", faults)
    folder = Path(own["out"]).expanduser() if own.get("out") else new_folder(recipe, "probe")
    return _probe(recipe, own, folder)


def _misspelt(overrides: Sequence[str]) -> Iterator[Fault]:
    for line in overrides:
        key, _, value = line.partition("=")
        if key.startswith("heads") or (key in OWN and not value):
            closest = nearest(key, OWN)
            got = "no value" if key in OWN else f"no setting {key}"
            yield Fault(line, got, listing(OWN), f"{closest}={value or 'VALUE'}" if closest else "")


def _of_no_use(overrides: Sequence[str]) -> Iterator[Fault]:
    for line in overrides:
        key = line.lstrip("+~").split("=", 1)[0]
        group, _, name = key.partition(".")
        if key == "head.replaces" or key in OWN:
            continue
        if group in OF_TRAINING:
            yield Fault(line, OF_TRAINING[group], f"{listing(OWN)}, and data, backbone, hardware", "leave it out")
        elif group == "trainer" and (got := _of_no_use_in_trainer(name.split(".")[0], line)):
            fix = f"heads.epochs={line.partition('=')[2]}, or leave it out" if name == "epochs" else "leave it out"
            yield Fault(line, got, fix=fix)


def _of_no_use_in_trainer(name: str, line: str) -> str:
    if name in OF_PROCESSES or line in ("trainer=ddp", "trainer=fsdp"):
        return "a probe runs in one process, on one device"
    return "it concerns a training in epochs" if name in OF_EPOCHS else ""


def _wrong_numbers(own: Mapping[str, str]) -> Iterator[Fault]:
    for key, above in (("heads.learning_rates", True), ("heads.weight_decays", False)):
        found = [number_of(one, float) for one in own.get(key, "1").split(",")]
        if not all(one > 0 or (one == 0 and not above) for one in found):
            valid = f"numbers {'above 0' if above else 'of at least 0'}, with commas between them"
            yield Fault(f"{key}={own[key]}", own[key], valid, f"{key}={'1e-3,1e-2' if above else '0,1e-2'}")
    for key, usual in (("heads.seeds", "3"), ("heads.epochs", "30")):
        if not number_of(own.get(key, usual), int) >= 1:
            yield Fault(f"{key}={own[key]}", own[key], "a whole number of at least 1", f"{key}={usual}")


def _nothing_to_choose_by(recipe: Recipe) -> Iterator[Fault]:
    """Where that is known before the data are looked at."""
    dataset = recipe.dataset
    if isinstance(dataset, Captcha):
        if dataset.val == 0:
            yield Fault("dataset.val=0", "no validation images", fix="dataset.val=10")
    elif dataset.fractions.val == 0 and (dataset.splits.val if isinstance(dataset, Folder) else dataset.split_column):
        return  # its own, if they are there
    elif dataset.fractions.val == 0:
        yield Fault("dataset.fractions.val=0", "no validation images", fix="dataset.fractions.val=0.15")


def _probe(recipe: Recipe, own: Mapping[str, str], folder: Path) -> int:
    from thaw.features.heads import Grid
    from thaw.training.probing import probe

    usual = Grid()
    grid = Grid(
        _numbers(own, "heads.learning_rates", usual.learning_rates),
        _numbers(own, "heads.weight_decays", usual.weight_decays),
        int(own.get("heads.seeds", usual.seeds)),
        int(own.get("heads.epochs", usual.epochs)),
    )
    _say(interruptible(lambda: probe(recipe, grid, folder)))
    return DONE


def _numbers(own: Mapping[str, str], key: str, usual: Numbers) -> Numbers:
    """Each once, however often it is named."""
    return tuple(dict.fromkeys(map(float, own[key].split(",")))) if key in own else usual


def _say(probed: Probed) -> None:
    columns = [
        *(Column("classifier", keep=True), Column("best setting"), Column("tried", number=True)),
        *(Column("val accuracy", number=True), Column("val loss", number=True), Column("seconds", number=True)),
        Column("remark"),
    ]
    print()
    print_table(columns, [*_rows(probed)])
    test = probed.metrics["test"]
    low, high = test["accuracy_ci95"]
    print(f"\nchosen on {probed.metrics['val']['count']} validation images: {_named(probed.winner)}")
    print(f"test accuracy {test['accuracy']:.3f}   95 % interval {low:.3f} to {high:.3f}, {test['count']} images")
    print(f"everything is in {probed.directory}: a run like any other; probe.csv has all that was tried")


def _rows(probed: Probed) -> Iterator[list[str]]:
    """One a method: its best."""
    from thaw.features.trial import best_of

    methods = dict.fromkeys(one.method for one in probed.trials)
    for method in methods:
        members = [one for one in probed.trials if one.method == method]
        best = best_of(members)
        loss = "-" if best.linear is None else f"{best.loss:.3f}"
        remark = "; ".join(filter(None, ["chosen" if best is probed.winner else "", best.remark]))
        seconds = f"{sum(one.seconds for one in members):.2f}"
        yield [method, best.told(), str(len(members)), f"{best.accuracy:.3f}", loss, seconds, remark]


def _named(trial: Trial) -> str:
    return f"{trial.method}, {trial.told()}" if trial.setting else trial.method
