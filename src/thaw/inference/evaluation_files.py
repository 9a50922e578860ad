"""Writes the evaluation of a split as files, and compares its metrics with recorded ones."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import torch

from thaw.inference.evaluate import Evaluation
from thaw.inference.load import Classifier
from thaw.inference.predict import load_pixels
from thaw.metrics.classification import captions, top_losses
from thaw.metrics.per_class import ClassMetrics
from thaw.runs.run import write_evaluation as write_run_evaluation
from thaw.system.files import write_text
from thaw.visualization.plots.image_grid import save_image_grid
from thaw.visualization.plots.training import save_confusion_matrix, save_reliability_diagram

MAX_SHOWN_IMAGES = 32


def write_evaluation(
    folder: Path, classifier: Classifier, split: str, evaluation: Evaluation, metrics: Mapping[str, Any]
) -> None:
    """Write to `folder`: metrics.json, with the `metrics` of all splits; of `split` per_class.csv, predictions.csv,
    confusion_matrix.png, reliability.png and worst.jpg, the predictions with the highest loss."""
    positions = torch.from_numpy(evaluation.positions)
    write_run_evaluation(folder, dict(metrics), evaluation.samples, evaluation.logits, positions)
    write_text(folder / "per_class.csv", _format_csv(evaluation.compute_class_metrics()))
    count, error, confusion = len(evaluation.labels), metrics[split]["ece"], evaluation.confusion
    title = f"{confusion.trace()} of {count} {split} images right"
    save_confusion_matrix(confusion, evaluation.samples.classes, title, folder / "confusion_matrix.png")
    title = f"{count} {split} images, calibration error {error:.3f}"
    save_reliability_diagram(evaluation.compute_reliability(), title, folder / "reliability.png")
    _save_top_losses(folder / "worst.jpg", classifier, evaluation)


def _format_csv(rows: Sequence[ClassMetrics]) -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    names = (field.name.removesuffix("_ci95") if field.name != "name" else "class" for field in fields(rows[0]))
    header = list(dict.fromkeys(names))
    interval_names = header[header.index("recall") :]
    interval_columns = [f"{name}{suffix}" for name in interval_names for suffix in ("", "_low", "_high")]
    writer.writerow([*header[: -len(interval_names)], *interval_columns])
    writer.writerows([*_format_cells(astuple(row))] for row in rows)
    return buffer.getvalue()


def _format_cells(values: Sequence[Any]) -> Iterator[Any]:
    for value in values:
        if isinstance(value, tuple):
            yield from (f"{number:.6g}" for number in value)
        else:
            yield f"{value:.6g}" if isinstance(value, float) else value


def _save_top_losses(file: Path, classifier: Classifier, evaluation: Evaluation) -> None:
    indices = top_losses(evaluation.logits, evaluation.labels, MAX_SHOWN_IMAGES)
    samples = [evaluation.samples.samples[evaluation.positions[index]] for index in indices]
    labels = [sample.label for sample in samples]
    titles, is_wrong = captions(evaluation.logits[indices], labels, evaluation.samples.classes)
    pixels = load_pixels([evaluation.samples.root / sample.path for sample in samples], classifier.preprocessing)
    save_image_grid(pixels, titles, is_wrong, file)


def find_metric_differences(metrics: Mapping[str, Any], recorded_metrics: Mapping[str, Any]) -> dict[str, float] | None:
    """Return "SPLIT METRIC" -> largest difference for each metric that differs from the recorded one; None if the two
    have no metric in common."""
    keys = [(split, key) for split in metrics if split in recorded_metrics for key in metrics[split]]
    pairs = {
        f"{split} {key}": (metrics[split][key], recorded_metrics[split][key])
        for split, key in keys
        if key in recorded_metrics[split]
    }
    differences = {name: _max_difference(actual, expected) for name, (actual, expected) in pairs.items()}
    return {name: differences[name] for name, pair in pairs.items() if pair[0] != pair[1]} if pairs else None


def _max_difference(actual: Any, expected: Any) -> float:
    pairs = zip(actual, expected, strict=True) if isinstance(actual, list) else [(actual, expected)]
    return float(max(abs(actual_number - expected_number) for actual_number, expected_number in pairs))
