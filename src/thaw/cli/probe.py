"""`thaw probe OVERRIDES`: what linear classifiers make of a frozen backbone's features; the best becomes a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thaw.cli.arguments import (
    compose_single_recipe,
    generate_output_path,
    is_help_request,
    parse_number,
    run_interruptible,
)
from thaw.cli.table import Column, print_table
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names
from thaw.config.schema import CaptchaDatasetConfig, FolderDatasetConfig, Recipe

if TYPE_CHECKING:
    from thaw.probing.result import ProbeResult
    from thaw.probing.trial import ProbeTrial

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
PROBE_KEYS = ("heads.learning_rates", "heads.weight_decays", "heads.seeds", "heads.epochs", "out")
FIXED_OVERRIDES = ("strategy=fixed", "head=linear")
UNSUPPORTED_GROUPS = {
    "strategy": "a probe's features are frozen",
    "head": "a probe's head is linear",
    "optimizer": "a probe has its own",
    "scheduler": "a probe has its own",
    "augment": "a probe sees images as they are",
    "experiment": "it sets what a probe has no use for",
    "resume": "a probe is done in one go",
    "hydra": "a probe is one job",
}
EPOCH_KEYS = (
    *(
        "epochs",
        "label_smoothing",
        "accumulate_grad_batches",
        "gradient_clip_val",
        "early_stopping",
        "averaging",
        "class_balance",
    ),
    "test_time_augmentation",
)
PROCESS_KEYS = ("parallel", "devices", "num_nodes", "sync_batchnorm")
Numbers = tuple[float, ...]


def run(arguments: Sequence[str]) -> int:
    """Probes as `arguments` say and returns the exit status.

    Raises:
        UserFault: where the settings are wrong, there is nothing to choose by, or data and weights cannot be had.
    """
    if is_help_request(arguments):
        print(HELP)
        return EXIT_SUCCESS
    settings = dict(
        argument.split("=", 1) for argument in arguments if argument.split("=", 1)[0] in PROBE_KEYS and "=" in argument
    )
    overrides = [
        argument
        for argument in arguments
        if argument.split("=", 1)[0] not in settings and argument not in FIXED_OVERRIDES
    ]
    if problems := [
        *_find_misspelt_settings(overrides),
        *_find_unsupported_overrides(overrides),
        *_find_number_problems(settings),
    ]:
        raise UserError("nothing was started.", problems)
    recipe = compose_single_recipe("thaw probe", [*FIXED_OVERRIDES, *overrides])  # before torch is imported
    if problems := [*_find_validation_problems(recipe)]:
        raise UserError("a probe chooses on validation images.", problems)
    folder = Path(settings["out"]).expanduser() if settings.get("out") else generate_output_path(recipe, "probe")
    return _probe(recipe, settings, folder)


def _find_misspelt_settings(overrides: Sequence[str]) -> Iterator[Problem]:
    for override in overrides:
        key, _, value = override.partition("=")
        if key.startswith("heads") or (key in PROBE_KEYS and not value):
            closest = find_closest_name(key, PROBE_KEYS)
            actual = "no value" if key in PROBE_KEYS else f"no setting {key}"
            yield Problem(
                override, actual, format_names(PROBE_KEYS), f"{closest}={value or 'VALUE'}" if closest else ""
            )


def _find_unsupported_overrides(overrides: Sequence[str]) -> Iterator[Problem]:
    for override in overrides:
        key = override.lstrip("+~").split("=", 1)[0]
        group, _, name = key.partition(".")
        if key == "head.replaces" or key in PROBE_KEYS:
            continue
        if group in UNSUPPORTED_GROUPS:
            yield Problem(
                override,
                UNSUPPORTED_GROUPS[group],
                f"{format_names(PROBE_KEYS)}, and data, backbone, hardware",
                "leave it out",
            )
        elif group == "trainer" and (reason := _get_unsupported_trainer_reason(name.split(".")[0], override)):
            fix = f"heads.epochs={override.partition('=')[2]}, or leave it out" if name == "epochs" else "leave it out"
            yield Problem(override, reason, fix=fix)


def _get_unsupported_trainer_reason(name: str, override: str) -> str:
    if name in PROCESS_KEYS or override in ("trainer=ddp", "trainer=fsdp"):
        return "a probe runs in one process, on one device"
    return "it concerns a training in epochs" if name in EPOCH_KEYS else ""


def _find_number_problems(settings: Mapping[str, str]) -> Iterator[Problem]:
    for key, is_positive in (("heads.learning_rates", True), ("heads.weight_decays", False)):
        numbers = [parse_number(number, float) for number in settings.get(key, "1").split(",")]
        if not all(number > 0 or (number == 0 and not is_positive) for number in numbers):
            valid = f"numbers {'above 0' if is_positive else 'of at least 0'}, with commas between them"
            yield Problem(
                f"{key}={settings[key]}", settings[key], valid, f"{key}={'1e-3,1e-2' if is_positive else '0,1e-2'}"
            )
    for key, default in (("heads.seeds", "3"), ("heads.epochs", "30")):
        if not parse_number(settings.get(key, default), int) >= 1:
            yield Problem(f"{key}={settings[key]}", settings[key], "a whole number of at least 1", f"{key}={default}")


def _find_validation_problems(recipe: Recipe) -> Iterator[Problem]:
    """Where that is known before the data are looked at."""
    dataset = recipe.dataset
    if isinstance(dataset, CaptchaDatasetConfig):
        if dataset.val == 0:
            yield Problem("dataset.val=0", "no validation images", fix="dataset.val=10")
    elif dataset.fractions.val == 0 and (
        dataset.splits.val if isinstance(dataset, FolderDatasetConfig) else dataset.split_column
    ):
        return  # its own, if they are there
    elif dataset.fractions.val == 0:
        yield Problem("dataset.fractions.val=0", "no validation images", fix="dataset.fractions.val=0.15")


def _probe(recipe: Recipe, settings: Mapping[str, str], folder: Path) -> int:
    from thaw.probing.linear_heads import HeadGrid
    from thaw.probing.probe import probe
    from thaw.system.reporter import ConsoleReporter

    defaults = HeadGrid()
    grid = HeadGrid(
        _parse_numbers(settings, "heads.learning_rates", defaults.learning_rates),
        _parse_numbers(settings, "heads.weight_decays", defaults.weight_decays),
        int(settings.get("heads.seeds", defaults.seeds)),
        int(settings.get("heads.epochs", defaults.epochs)),
    )
    _print_result(run_interruptible(lambda: probe(recipe, grid, folder, ConsoleReporter())))
    return EXIT_SUCCESS


def _parse_numbers(settings: Mapping[str, str], key: str, default: Numbers) -> Numbers:
    """Each once, however often it is named."""
    return tuple(dict.fromkeys(map(float, settings[key].split(",")))) if key in settings else default


def _print_result(result: ProbeResult) -> None:
    columns = [
        *(Column("classifier", no_wrap=True), Column("best setting"), Column("tried", is_numeric=True)),
        *(
            Column("val accuracy", is_numeric=True),
            Column("val loss", is_numeric=True),
            Column("seconds", is_numeric=True),
        ),
        Column("remark"),
    ]
    print()
    print_table(columns, [*_iter_rows(result)])
    test_metrics = result.metrics["test"]
    low, high = test_metrics["accuracy_ci95"]
    print(f"\nchosen on {result.metrics['val']['count']} validation images: {_format_trial(result.winner)}")
    print(
        f"test accuracy {test_metrics['accuracy']:.3f}   95 % interval {low:.3f} to {high:.3f}, {test_metrics['count']} images"
    )
    print(f"everything is in {result.run.directory}: a run like any other; probe.csv has all that was tried")


def _iter_rows(result: ProbeResult) -> Iterator[list[str]]:
    """One a method: its best."""
    from thaw.probing.trial import select_most_accurate

    methods = dict.fromkeys(trial.method for trial in result.trials)
    for method in methods:
        method_trials = [trial for trial in result.trials if trial.method == method]
        best = select_most_accurate(method_trials)
        loss = "-" if best.linear is None else f"{best.loss:.3f}"
        remark = "; ".join(filter(None, ["chosen" if best is result.winner else "", best.remark]))
        seconds = f"{sum(trial.seconds for trial in method_trials):.2f}"
        yield [method, best.format_setting(), str(len(method_trials)), f"{best.accuracy:.3f}", loss, seconds, remark]


def _format_trial(trial: ProbeTrial) -> str:
    return f"{trial.method}, {trial.format_setting()}" if trial.setting else trial.method
