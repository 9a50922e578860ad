"""`thaw evaluate RUN|CKPT`: evaluate a trained network on labelled images, from its checkpoint alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.cli.arguments import get_config_dir_arguments
from thaw.cli.grammar import ANY_RECIPE_KEY, Verb
from thaw.cli.options import ChoiceList, FilePath, Option, config_dir_option, out_option, path_argument
from thaw.config.errors import EXIT_SUCCESS, UserError
from thaw.config.printable import escape_line

if TYPE_CHECKING:
    from thaw.inference.evaluate import Evaluation
    from thaw.metrics.per_class import ClassMetrics
    from thaw.runs.run import Run

SPLITS = ("test", "val", "train", "all")
MAX_SHOWN_CLASSES, MAX_SHOWN_PATHS = 10, 5
METRICS = {
    "accuracy": "accuracy",
    "top5_accuracy": "top-5 accuracy",
    "macro_accuracy": "macro (balanced) accuracy",
    "macro_f1": "macro F1",
    "auroc": "AUROC",
    "average_precision": "average precision",
    "kappa": "Cohen's kappa",
    "ece": "calibration error",
    "loss": "loss",
}


@Verb(
    "evaluate",
    summary="evaluate a trained network on labelled images, from its checkpoint alone",
    examples=("thaw evaluate outputs/RUN --out outputs/evaluation", "thaw evaluate best.ckpt dataset.root=DIR"),
    description="RUN|CKPT is a run directory, or a checkpoint of one; nothing else of the run is needed. The data are "
    "those of the checkpoint, split as its recipe says, so the numbers are those of the run; or another data "
    "set of these classes or some of them (dataset=NAME), or another place (dataset.root=DIR); images that the network "
    "was trained or selected on are then left out of the test images. data.*, feature_cache.mode, and "
    "trainer.batch_size, accelerator, precision, threads and test_time_augmentation can be set as for train.py. "
    "Intervals are 95 % confidence intervals.",
    paths=(path_argument("checkpoint", "RUN|CKPT", FilePath()),),
    options=(
        Option("--split", type=ChoiceList(SPLITS), default=("test", "val"), metavar="SPLIT,...",
               help="test, val, train, or all images; those that have no images are left out"),
        out_option("DIR", "of the first split: metrics.json, per_class.csv, predictions.csv, confusion_matrix.png, "
                   "reliability.png and worst.jpg, the predictions with the highest loss"),
        config_dir_option(),
    ),
    recipe_keys=ANY_RECIPE_KEY,
    no_args_is_help=True,
)  # fmt: skip
def evaluate(
    checkpoint: Path, overrides: Sequence[str], split: Sequence[str], out: Path | None, config_dir: Path | None
) -> int:
    """Evaluate the network, print its metrics, and return the exit status.

    Raises:
        UserError: for a file that is no checkpoint, a wrong recipe, or data that are not available or do not fit.
    """
    from thaw.config.recipe_overrides import with_overrides
    from thaw.inference.evaluate import evaluate_splits
    from thaw.inference.evaluation_data import load_evaluation_data
    from thaw.inference.load import load_checkpoint
    from thaw.runs.run import Run
    from thaw.system.process import configure_process
    from thaw.system.reporter import ConsoleReporter

    classifier = load_checkpoint(checkpoint)
    recipe = with_overrides(classifier.recipe, overrides, get_config_dir_arguments(config_dir))
    configure_process(recipe.seed, recipe.trainer.deterministic, recipe.trainer.threads)
    has_trainer_overrides = any(override.startswith("trainer.") for override in overrides)
    classifier = replace(classifier, recipe=recipe).on_hardware(recipe.trainer if has_trainer_overrides else None)
    fingerprint = None if classifier.identity else _read_fingerprint(checkpoint)
    data = load_evaluation_data(classifier, recipe, overrides, fingerprint)
    print("\n".join([*data.notes, ""] if data.notes else []), end="")
    evaluations = evaluate_splits(classifier, recipe, data.samples, list(split), ConsoleReporter())
    metrics = {name: evaluation.compute_metrics() for name, evaluation in evaluations.items()}
    _print_evaluations(evaluations, metrics)
    if not overrides and data.is_own:
        _print_differences(metrics, Run(checkpoint))
    if "test" in evaluations:
        metrics |= _report_leaks(evaluations["test"], metrics, recipe.data.near_duplicates)
    if out:
        from thaw.inference.evaluate import write_evaluation

        first_split, evaluation = next(iter(evaluations.items()))
        write_evaluation(out, classifier, first_split, evaluation, metrics)
        print(f"\n{first_split}: everything is in {out}")
    return EXIT_SUCCESS


def _read_fingerprint(checkpoint: Path) -> str | None:
    """Return the fingerprint of the data in the record of a run; None for a checkpoint alone."""
    from thaw.runs.run import Run, is_run

    return Run(checkpoint).record.get("data", {}).get("fingerprint") if is_run(checkpoint) else None


def _print_evaluations(evaluations: Mapping[str, Evaluation], metrics: Mapping[str, Mapping[str, Any]]) -> None:
    from thaw.cli.table import Column, print_table

    headings = [_describe_images(split, split_metrics) for split, split_metrics in metrics.items()]
    rows = [
        [label, *(_format_metric(split_metrics, key) for split_metrics in metrics.values())]
        for key, label in METRICS.items()
    ]
    print_table([Column("", no_wrap=True), *map(Column, headings)], rows)
    if any("groups" in split_metrics for split_metrics in metrics.values()):
        print(
            "intervals resample groups of images, because images of one group resemble each other; those of the "
            "calibration error and of single classes resample images"
        )
    for split, evaluation in evaluations.items():
        if evaluation.skipped:
            paths = ", ".join(map(escape_line, list(evaluation.skipped)[:MAX_SHOWN_PATHS]))
            print(f"{split}: left out, because they cannot be decoded: {len(evaluation.skipped)} ({paths})")
    first_split, first_evaluation = next(iter(evaluations.items()))
    _print_worst_classes(first_split, first_evaluation)
    _print_confused_pairs(first_split, first_evaluation)


def _describe_images(split: str, metrics: Mapping[str, Any]) -> str:
    groups = f" of {metrics['groups']} groups" if "groups" in metrics else ""
    return f"{split}, {metrics['count']} images{groups}"


def _report_leaks(
    evaluation: Evaluation, metrics: Mapping[str, Any], has_searched_copies: bool
) -> dict[str, dict[str, Any]]:
    """Print how many test images leak, and return the metrics of the others as an entry of metrics.json."""
    from thaw.data.leaks import WITHOUT_LEAKS
    from thaw.visualization.reports.console import describe_leaks

    leaks = evaluation.count_leaks()
    clean = evaluation.without_leaks() if leaks else None
    entries = {WITHOUT_LEAKS: clean.compute_metrics()} if clean else {}
    if leaks:
        print(f"\n{describe_leaks(leaks, {**metrics, **entries})}")
    if has_searched_copies:  # by data.near_duplicates in the run
        print("\ncopies in other files are searched for by a training only: the report of the run counts them")
    return entries


def _format_metric(metrics: Mapping[str, Any], key: str) -> str:
    if key not in metrics:  # not defined, as AUROC with one class
        return "-"
    interval = metrics.get(f"{key}_ci95")
    return f"{metrics[key]:.3f}" + (f"   {interval[0]:.3f} to {interval[1]:.3f}" if interval else "")


def _print_worst_classes(split: str, evaluation: Evaluation) -> None:
    from thaw.cli.table import Column, print_table

    class_metrics = sorted((row for row in evaluation.compute_class_metrics() if row.count), key=lambda row: row.f1)
    shown = class_metrics[:MAX_SHOWN_CLASSES]
    keys = ("recall", "precision", "f1")
    rows = [[row.name, str(row.count), *(_format_fraction(row, key) for key in keys)] for row in shown]
    is_shortened = len(shown) == MAX_SHOWN_CLASSES
    title = f"\n{split}: the {len(shown)} classes with the lowest F1" if is_shortened else f"\n{split}"
    columns = [Column("class"), Column("images", is_numeric=True), Column("recall"), Column("precision"), Column("F1")]
    print_table(columns, rows, title)


def _format_fraction(row: ClassMetrics, key: str) -> str:
    low, high = getattr(row, f"{key}_ci95")
    return f"{getattr(row, key):.3f}   {low:.3f} to {high:.3f}"


def _print_confused_pairs(split: str, evaluation: Evaluation) -> None:
    from thaw.cli.table import Column, print_table
    from thaw.metrics.per_class import find_confused_pairs

    pairs = find_confused_pairs(evaluation.confusion, evaluation.samples.classes)
    if not pairs:
        print(f"\n{split}: every prediction is right")
        return
    columns = [Column("label"), Column("predicted as"), Column("images", is_numeric=True)]
    rows = [[pair.label, pair.prediction, str(pair.count), f"{pair.fraction:.1%}"] for pair in pairs]
    print_table([*columns, Column("of the label", is_numeric=True)], rows, f"\n{split}: most confused")


def _print_differences(metrics: Mapping[str, Any], run: Run) -> None:
    from thaw.inference.evaluate import find_metric_differences

    try:
        recorded_metrics = run.metrics
    except UserError as error:  # the evaluation needs nothing of the run but its checkpoint
        print(f"\nnot compared with the run's own metrics: {error}")
        return
    differences = find_metric_differences(metrics, recorded_metrics) if recorded_metrics else None
    if differences is None:
        return
    summary = "the same numbers"
    if differences:
        summary = f"{', '.join(differences)} differ, by {max(differences.values()):.2g} at most"
    print(f"\ncompared with the run's own metrics.json: {summary}")
