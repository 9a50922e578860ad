"""`thaw probe key=value`: fit linear classifiers and k-NN to a backbone's frozen features."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from thaw.cli.arguments import compose_recipe, generate_output_path, run_interruptible
from thaw.cli.grammar import ANY_RECIPE_KEY, Parameters, Verb
from thaw.cli.options import NumberList, Option, config_dir_option, out_option
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError

if TYPE_CHECKING:
    from thaw.config.schema import Recipe
    from thaw.probing.cross_validation import CrossValidation
    from thaw.probing.linear_heads import HeadGrid
    from thaw.probing.record import ProbeResult
    from thaw.probing.trial import ProbeTrial


FIXED_OVERRIDES = ("strategy=fixed", "head=linear")
VALID_OVERRIDES = "keys of data, backbone and hardware, and the options of thaw probe"
UNSUPPORTED_GROUPS = {
    "strategy": "a probe's features are frozen",
    "head": "a probe's head is linear",
    "optimizer": "a probe has its own",
    "scheduler": "a probe has its own",
    "augment": "a probe does not augment",
    "experiment": "it sets keys that a probe does not use",
    "resume": "a probe cannot be interrupted and continued",
    "hydra": "a probe is one job",
}
EPOCH_KEYS = (
    "epochs",
    "label_smoothing",
    "accumulate_grad_batches",
    "gradient_clip_val",
    "early_stopping",
    "averaging",
    "class_balance",
    "test_time_augmentation",
)
PROCESS_KEYS = ("parallel", "devices", "num_nodes", "sync_batchnorm")


def _find_unsupported_overrides(parameters: Parameters) -> Iterator[Problem]:
    for override in parameters["overrides"]:
        key = override.lstrip("+~").split("=", 1)[0]
        group, _, name = key.partition(".")
        if key == "head.replaces" or override in FIXED_OVERRIDES:
            continue
        if group in UNSUPPORTED_GROUPS:
            yield Problem(override, UNSUPPORTED_GROUPS[group], VALID_OVERRIDES, "leave it out")
        elif group == "trainer" and (reason := _get_unsupported_trainer_reason(name.split(".")[0], override)):
            fix = f"--head-epochs {override.partition('=')[2]}, or leave it out" if name == "epochs" else "leave it out"
            yield Problem(override, reason, fix=fix)


def _get_unsupported_trainer_reason(name: str, override: str) -> str:
    if name in PROCESS_KEYS or override in ("trainer=ddp", "trainer=fsdp"):
        return "a probe runs in one process, on one device"
    return "it is about training in epochs" if name in EPOCH_KEYS else ""


@Verb(
    "probe",
    summary="fit linear classifiers to frozen features; the best becomes a run",
    examples=(
        "thaw probe dataset=hymenoptera",
        "thaw probe dataset=folder dataset.root=DIR backbone=resnet50 --head-seeds 1",
        "thaw probe dataset=folder dataset.root=DIR folds=5",
    ),
    description="Computes the features once, then fits nearest centroid, k-NN, logistic regression, linear SVM, and a "
    "grid of linear heads at once. The setting with the lowest loss on the validation images (mean over its seeds) "
    "becomes a run with its classifier in the head, and is the only one that is tested. Nearest centroid, k-NN and SVM "
    "have no probabilities and so no loss: they are in the table for their accuracy and are not chosen. With "
    "folds=N each image is tested once, and every fold is a run.",
    options=(
        Option(
            "--head-learning-rates",
            "--heads.learning-rates",
            type=NumberList(min=0, min_open=True),
            default=(3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
            metavar="RATE,...",
            help="for standardized features, with SGD, momentum and a cosine schedule",
        ),
        Option(
            "--head-weight-decays",
            "--heads.weight-decays",
            type=NumberList(min=0),
            default=(0.0, 1e-4, 1e-3, 1e-2, 1e-1, 1.0),
            metavar="DECAY,...",
            help="weight decays",
        ),
        Option("--head-seeds", "--heads.seeds", type=click.IntRange(min=1), default=3, metavar="N", help="starts each"),
        Option("--head-epochs", "--heads.epochs", type=click.IntRange(min=1), default=30, metavar="N", help="epochs"),
        out_option("DIR", "the run directory, or with folds the folder of all (default: a new one in output_dir)"),
        config_dir_option(),
    ),
    recipe_keys=ANY_RECIPE_KEY,
    check=_find_unsupported_overrides,
    no_args_is_help=True,
)
def probe(
    overrides: Sequence[str],
    head_learning_rates: tuple[float, ...],
    head_weight_decays: tuple[float, ...],
    head_seeds: int,
    head_epochs: int,
    out: Path | None,
    config_dir: Path | None,
) -> int:
    """Probe the recipe's backbone and return the exit status.

    Raises:
        UserError: if the recipe is wrong, there are no validation images, or data and weights are not available.
    """

    own_overrides = [override for override in overrides if override not in FIXED_OVERRIDES]
    recipe = compose_recipe([*FIXED_OVERRIDES, *own_overrides], config_dir)  # before torch is imported
    check_validation_images(recipe)
    from thaw.probing.linear_heads import HeadGrid

    return _probe(
        recipe,
        HeadGrid(head_learning_rates, head_weight_decays, head_seeds, head_epochs),
        out or generate_output_path(recipe, "probe"),
    )


def _probe(recipe: Recipe, grid: HeadGrid, folder: Path) -> int:
    from thaw.system.reporter import ConsoleReporter

    if recipe.folds is not None and recipe.fold is None:
        from thaw.probing import folds

        _print_folds(run_interruptible(lambda: folds.probe_folds(recipe, grid, folder, ConsoleReporter())))
        return EXIT_SUCCESS
    from thaw.probing import probe as probing

    _print_result(run_interruptible(lambda: probing.probe(recipe, grid, folder, ConsoleReporter())))
    return EXIT_SUCCESS


def _print_folds(result: CrossValidation) -> None:
    from thaw.cli.table import Column, print_table
    from thaw.probing.cross_validation import COLUMNS

    print()
    columns = [Column(heading, is_numeric=heading != "chosen") for heading in COLUMNS]
    print_table(columns, result.list_rows())
    print(f"\n{result.describe_choices()}")
    print(result.describe_accuracy())
    if result.group_effect:
        print(result.group_effect.describe())
    print(f"everything is in {result.directory}: a run for each fold; out_of_fold.csv has all predictions")


def _print_result(result: ProbeResult) -> None:
    from thaw.cli.table import Column, print_table

    numeric = [Column(heading, is_numeric=True) for heading in ("val accuracy", "val loss", "seconds")]
    columns = [Column("classifier", no_wrap=True), Column("best setting"), Column("tried", is_numeric=True)]
    print()
    print_table([*columns, *numeric, Column("remark")], [*_iter_rows(result)])
    test_metrics, num_val = result.metrics["test"], result.metrics["val"]["count"]
    low, high = test_metrics["accuracy_ci95"]
    interval = f"95 % interval {low:.3f} to {high:.3f}, {test_metrics['count']} images"
    print(f"\nchosen on {num_val} validation images: {_format_trial(result.winner)}")
    print(f"test accuracy {test_metrics['accuracy']:.3f}   {interval}")
    print(f"everything is in {result.run.directory}: a run like any other; probe.csv has all trials")


def _iter_rows(result: ProbeResult) -> Iterator[list[str]]:
    """Yield the row of each method: its best trial."""
    from thaw.probing.trial import average_over_seeds, select_best

    for method in dict.fromkeys(trial.method for trial in result.trials):
        trials = [trial for trial in result.trials if trial.method == method]
        best = select_best(trials)
        accuracy, loss = average_over_seeds(best, trials)
        loss_text = f"{loss:.3f}" if best.can_be_chosen else "-"
        remark = "; ".join(filter(None, ["chosen" if best is result.winner else "", best.remark]))
        seconds = f"{sum(trial.seconds for trial in trials):.2f}"
        yield [method, best.format_setting(), str(len(trials)), f"{accuracy:.3f}", loss_text, seconds, remark]


def _format_trial(trial: ProbeTrial) -> str:
    return f"{trial.method}, {trial.format_setting()}" if trial.setting else trial.method


def check_validation_images(recipe: Recipe) -> None:
    """Check that the recipe has validation images, on which a probe chooses.

    Raises:
        UserError: if it has none.
    """
    if problems := [*_find_validation_problems(recipe)]:
        raise UserError("a probe chooses on validation images.", problems)


def _find_validation_problems(recipe: Recipe) -> Iterator[Problem]:
    from thaw.config.schema import CaptchaDatasetConfig
    from thaw.config.search_space import has_validation_source

    dataset = recipe.dataset
    if isinstance(dataset, CaptchaDatasetConfig):
        if dataset.val == 0:
            yield Problem("dataset.val=0", "no validation images", fix="dataset.val=10")
    elif dataset.fractions.val == 0 and not has_validation_source(dataset, recipe.folds):
        yield Problem("dataset.fractions.val=0", "no validation images", fix="dataset.fractions.val=0.15")
