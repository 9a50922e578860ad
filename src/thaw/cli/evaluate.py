"""`thaw evaluate RUN|CKPT`: a trained network on labelled images, from its checkpoint alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.cli.arguments import CONFIG_DIR_OPTION, get_config_dir_arguments, is_help_request, parse_arguments
from thaw.cli.table import Column, print_table
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name

if TYPE_CHECKING:
    from thaw.inference.evaluate import Evaluation
    from thaw.inference.load import Classifier
    from thaw.metrics.per_class import ClassMetrics

SPLITS = ("test", "val", "train", "all")
MAX_SHOWN_CLASSES, MAX_SHOWN_IMAGES = 10, 32
METRICS = {
    "accuracy": "accuracy",
    "top5_accuracy": "top-5 accuracy",
    "macro_accuracy": "macro accuracy",
    "macro_f1": "macro F1",
    "ece": "calibration error",
    "loss": "loss",
}
HELP = """thaw evaluate RUN|CKPT [dataset=NAME] [dataset.KEY=VALUE ...] [split=SPLIT,...] [out=DIR] [--config-dir DIR]

  RUN|CKPT          a run directory, or a checkpoint of one; nothing else of the run is needed
  dataset...        another data set of the same classes, or where it lies now: dataset.root=DIR. Without a word it is
                    the checkpoint's own, cut into splits by the checkpoint's seed; so the numbers are those of the run
  split             test, val, train, or all images; test,val where nothing is said, as far as there are such images
  out=DIR           of the first split: metrics.json, per_class.csv, predictions.csv, confusion_matrix.png,
                    reliability.png and worst.jpg, the predictions furthest from their labels
  --config-dir DIR  presets of your own, as train.py takes them

    thaw evaluate outputs/RUN out=outputs/evaluation
    thaw evaluate best.ckpt dataset.root=DIR
    thaw evaluate best.ckpt dataset=folder dataset.root=DIR split=all

data.*, feature_cache.mode, and trainer.batch_size, accelerator, precision, threads and test_time_augmentation can be set as for
train.py. Intervals are of 95 %. Exit status: 0, or 2 where there is something for you to change."""


def run(arguments: Sequence[str]) -> int:
    """Evaluates, says what was found, and returns the exit status.

    Raises:
        UserFault: for a file that is no checkpoint, wrong settings, or data that cannot be had or do not fit.
    """
    if is_help_request(arguments):
        print(HELP)
        return EXIT_SUCCESS
    options, positionals = parse_arguments(arguments, (CONFIG_DIR_OPTION,), ())
    if not positionals:
        raise UserError(
            "nothing was started.", [Problem("thaw evaluate", "nothing", "a run or checkpoint", "see --help")]
        )
    run_or_checkpoint, *settings = positionals
    command_settings = dict(setting.split("=", 1) for setting in settings if setting.startswith(("split=", "out=")))
    splits = _parse_splits(command_settings.get("split", "test,val"))
    from thaw.config.recipe_overrides import with_overrides
    from thaw.inference.evaluate import evaluate_splits
    from thaw.inference.load import load_checkpoint
    from thaw.runs.run import Run
    from thaw.system.process import configure_process

    checkpoint_path = Path(run_or_checkpoint).expanduser()
    classifier = load_checkpoint(checkpoint_path)
    overrides = [setting for setting in settings if not setting.startswith(("split=", "out="))]
    recipe = with_overrides(classifier.recipe, overrides, get_config_dir_arguments(options))
    configure_process(recipe.seed, recipe.trainer.deterministic, recipe.trainer.threads)
    has_trainer_overrides = any(setting.startswith("trainer.") for setting in overrides)
    classifier = replace(classifier, recipe=recipe).on_hardware(recipe.trainer if has_trainer_overrides else None)
    evaluations_by_split = evaluate_splits(classifier, recipe, splits)
    metrics = {split: setting.compute_metrics() for split, setting in evaluations_by_split.items()}
    _print_evaluations(evaluations_by_split, metrics)
    if not overrides and (recorded_metrics := Run(checkpoint_path).metrics):
        print(_describe_differences(metrics, recorded_metrics))
    if command_settings.get("out"):
        _write_outputs(
            Path(command_settings["out"]).expanduser(), classifier, next(iter(evaluations_by_split.items())), metrics
        )
    return EXIT_SUCCESS


def _parse_splits(text: str) -> list[str]:
    splits = list(dict.fromkeys(text.split(",")))
    if unknown_splits := [split for split in splits if split not in SPLITS]:
        closest = find_closest_name(unknown_splits[0], SPLITS)
        raise UserError(
            "nothing was started.", [Problem(f"split={text}", unknown_splits[0], ", ".join(SPLITS), f"split={closest}")]
        )
    return splits


def _print_evaluations(
    evaluations_by_split: Mapping[str, Evaluation], metrics: Mapping[str, Mapping[str, Any]]
) -> None:
    columns = [
        Column("", no_wrap=True),
        *(Column(f"{name}, {evaluation['count']} images") for name, evaluation in metrics.items()),
    ]
    rows = [
        [label, *(_format_metric(evaluation, key) for evaluation in metrics.values())] for key, label in METRICS.items()
    ]
    print_table(columns, rows)
    split, first_evaluation = next(iter(evaluations_by_split.items()))
    for name, evaluation in evaluations_by_split.items():
        if evaluation.skipped:
            print(
                f"{name}: left out, as they cannot be decoded: {len(evaluation.skipped)} ({', '.join(list(evaluation.skipped)[:5])})"
            )
    _print_worst_classes(split, first_evaluation)
    _print_confused_pairs(split, first_evaluation)


def _format_metric(metrics: Mapping[str, Any], key: str) -> str:
    interval = metrics.get(f"{key}_ci95")
    return f"{metrics[key]:.3f}" + (f"   {interval[0]:.3f} to {interval[1]:.3f}" if interval else "")


def _print_worst_classes(split: str, evaluation: Evaluation) -> None:
    rows = sorted((row for row in evaluation.compute_class_metrics() if row.count), key=lambda row: row.f1)[
        :MAX_SHOWN_CLASSES
    ]
    columns = [
        Column("class"),
        Column("images", is_numeric=True),
        *(Column(row) for row in ("recall", "precision", "F1")),
    ]
    title = f"\n{split}: the {len(rows)} classes with the lowest F1" if len(rows) == MAX_SHOWN_CLASSES else f"\n{split}"
    metric_keys = (("recall", "recall_ci95"), ("precision", "precision_ci95"), ("f1", "f1_ci95"))
    print_table(
        columns,
        [[row.name, str(row.count), *(_format_share(row, *keys) for keys in metric_keys)] for row in rows],
        title,
    )


def _format_share(row: ClassMetrics, key: str, interval_key: str) -> str:
    low, high = getattr(row, interval_key)
    return f"{getattr(row, key):.3f}   {low:.3f} to {high:.3f}"


def _print_confused_pairs(split: str, evaluation: Evaluation) -> None:
    from thaw.metrics.per_class import find_confused_pairs

    pairs = find_confused_pairs(evaluation.confusion, evaluation.samples.classes)
    if not pairs:
        print(f"\n{split}: every prediction is right")
        return
    columns = [
        Column("label"),
        Column("taken for"),
        Column("images", is_numeric=True),
        Column("of the label", is_numeric=True),
    ]
    rows = [[pair.label, pair.prediction, str(pair.count), f"{pair.fraction:.1%}"] for pair in pairs]
    print_table(columns, rows, f"\n{split}: most confused")


def _describe_differences(metrics: Mapping[str, Any], recorded_metrics: Mapping[str, Any]) -> str:
    """Of what both have."""
    keys = [
        (split, key)
        for split in metrics
        if split in recorded_metrics
        for key in metrics[split]
        if key in recorded_metrics[split]
    ]
    differing_keys = [f"{split} {key}" for split, key in keys if metrics[split][key] != recorded_metrics[split][key]]
    max_difference = max(
        (_compute_max_difference(metrics[split][key], recorded_metrics[split][key]) for split, key in keys), default=0.0
    )
    if not keys:
        return ""
    summary = (
        f"{', '.join(differing_keys)} differ, by {max_difference:.2g} at most" if differing_keys else "the same numbers"
    )
    return f"\nbeside the run's own metrics.json: {summary}"


def _compute_max_difference(actual: Any, expected: Any) -> float:
    pairs = zip(actual, expected, strict=True) if isinstance(actual, list) else [(actual, expected)]
    return float(max(abs(actual_number - expected_number) for actual_number, expected_number in pairs))


def _write_outputs(
    folder: Path, classifier: Classifier, split_evaluation: tuple[str, Evaluation], metrics: Mapping[str, Any]
) -> None:
    import torch

    from thaw.runs.evaluation import write_evaluation
    from thaw.system.files import write_text
    from thaw.visualization.plots.training import save_confusion_matrix, save_reliability_diagram

    split, evaluation = split_evaluation
    positions = torch.from_numpy(evaluation.positions)
    write_evaluation(folder, dict(metrics), evaluation.samples, evaluation.logits, positions)
    write_text(folder / "per_class.csv", _format_csv(evaluation.compute_class_metrics()))
    count, error, confusion = len(evaluation.labels), metrics[split]["ece"], evaluation.confusion
    title = f"{confusion.trace()} of {count} {split} images right"
    save_confusion_matrix(confusion, evaluation.samples.classes, title, folder / "confusion_matrix.png")
    title = f"{count} {split} images, calibration error {error:.3f}"
    save_reliability_diagram(evaluation.compute_reliability(), title, folder / "reliability.png")
    _save_top_losses(folder / "worst.jpg", classifier, evaluation)
    print(f"\nof {split}: everything is in {folder}")


def _format_csv(rows: Sequence[ClassMetrics]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = (field.name.removesuffix("_ci95") if field.name != "name" else "class" for field in fields(rows[0]))
    header = list(dict.fromkeys(names))
    interval_columns = header[header.index("recall") :]
    writer.writerow(
        [
            *header[: -len(interval_columns)],
            *(f"{field}{suffix}" for field in interval_columns for suffix in ("", "_low", "_high")),
        ]
    )
    writer.writerows([*_format_cells(astuple(row))] for row in rows)
    return buffer.getvalue()


def _format_cells(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple):
            yield from (f"{number:.6g}" for number in value)
        else:
            yield f"{value:.6g}" if isinstance(value, float) else value


def _save_top_losses(file: Path, classifier: Classifier, evaluation: Evaluation) -> None:
    from thaw.inference.predict import load_pixels
    from thaw.metrics.top_losses import captions, top_losses
    from thaw.visualization.plots.image_grid import save_image_grid

    indices = top_losses(evaluation.logits, evaluation.labels, MAX_SHOWN_IMAGES)
    samples = [evaluation.samples.samples[evaluation.positions[sample]] for sample in indices]
    titles, is_wrong = captions(
        evaluation.logits[indices], [sample.label for sample in samples], evaluation.samples.classes
    )
    pixels = load_pixels([evaluation.samples.root / sample.path for sample in samples], classifier.preprocessing)
    save_image_grid(pixels, titles, is_wrong, file)
