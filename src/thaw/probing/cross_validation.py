"""The result of a cross-validated probe: in Python and notebooks, and the predictions of all images as a file."""

from __future__ import annotations

import html
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from thaw.data.samples import Samples
from thaw.metrics.bootstrap import compute_mean_interval, sum_over_units
from thaw.metrics.per_class import Interval, wilson_interval
from thaw.probing.group_effect import GroupEffect
from thaw.probing.record import ProbeResult
from thaw.probing.trial import ProbeTrial
from thaw.runs.run import Run
from thaw.system.csv_files import format_rows
from thaw.system.files import write_text
from thaw.system.tables import build_data_frame

PREDICTIONS_FILE = "out_of_fold.csv"
COLUMNS = ("fold", "train", "val", "test", "chosen", "val accuracy", "test accuracy")


@dataclass(frozen=True)
class FoldPrediction:
    """The prediction of one image by the classifier of its fold, which was not fitted to it."""

    path: str
    group: str | None
    fold: int
    label: str
    prediction: str
    probability: float


@dataclass(frozen=True)
class CrossValidation:
    """A probe of every fold. In a notebook it shows a row for each fold. `thaw.compare` takes it as it is.

    Attributes:
        directory: the folder with one run directory for each fold.
        folds: the result of each fold.
        predictions: of all images, sorted by path: each by the classifier that was not fitted to it.
        accuracy: over all images.
        accuracy_ci95: its 95 % interval; over groups if there are any, otherwise over images.
        num_groups: the number of groups; None without groups.
        group_effect: what random folds would measure; None without groups.
    """

    directory: Path
    folds: list[ProbeResult]
    predictions: list[FoldPrediction]
    accuracy: float
    accuracy_ci95: Interval
    num_groups: int | None
    group_effect: GroupEffect | None

    @property
    def runs(self) -> list[Run]:
        """The run of each fold."""
        return [result.run for result in self.folds]

    def __fspath__(self) -> str:
        return str(self.directory)

    def list_rows(self) -> list[list[str]]:
        """Return a row of text for each fold: its number, its images, what was chosen, its accuracies."""
        rows = []
        for fold, result in enumerate(self.folds):
            counts = result.run.record["data"]["images"]
            accuracies = [f"{result.metrics[split]['accuracy']:.3f}" for split in ("val", "test")]
            images = [str(counts[split]) for split in ("train", "val", "test")]
            rows.append([str(fold), *images, format_choice(result.winner), *accuracies])
        return rows

    def describe_choices(self) -> str:
        """Return which classifier was chosen in how many folds, the most frequent first."""
        settings = {_format_without_seed(result.winner) for result in self.folds}
        if len(settings) == 1:
            return f"chosen in every fold: {settings.pop()}"
        counts = Counter(result.winner.method for result in self.folds)
        methods = ", ".join(f"{method} in {count}" for method, count in counts.most_common())
        return f"chosen: {methods} of {len(self.folds)} folds, with {len(settings)} settings in all"

    def describe_accuracy(self) -> str:
        """Return the accuracy over all images with its interval."""
        low, high = self.accuracy_ci95
        groups = "" if self.num_groups is None else f" of {self.num_groups} groups, which are its unit"
        interval = f"95 % interval {low:.3f} to {high:.3f}"
        return f"accuracy {self.accuracy:.3f}   {interval}, {len(self.predictions)} images{groups}"

    def to_frame(self) -> Any:
        """Return one row per image: path, group, fold, label, prediction, probability. A pandas data frame if pandas is
        installed, otherwise a list of dicts."""
        return build_data_frame([dict(vars(prediction)) for prediction in self.predictions])

    def __repr__(self) -> str:
        return f"CrossValidation({len(self.folds)} folds, {self.describe_accuracy()})"

    def _repr_html_(self) -> str:
        header = "".join(f"<th>{name}</th>" for name in COLUMNS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in self.list_rows()
        )
        lines = [repr(self), *([self.group_effect.describe()] if self.group_effect else [])]
        text = "<br>".join(map(html.escape, lines))
        return f"<div>{text}<table><tr>{header}</tr>{rows}</table></div>"


def format_choice(trial: ProbeTrial) -> str:
    """Return a classifier with its setting."""
    return f"{trial.method}, {trial.format_setting()}" if trial.setting else trial.method


def _format_without_seed(trial: ProbeTrial) -> str:
    return format_choice(trial).partition(", seed ")[0]


def build_cross_validation(
    directory: Path, folds: Sequence[ProbeResult], samples: Samples, group_effect: GroupEffect | None
) -> CrossValidation:
    """Pool the predictions of the `folds` of a data set's `samples`."""
    predictions = sorted(_iter_predictions(folds, samples), key=lambda prediction: prediction.path)
    is_correct = np.array([prediction.label == prediction.prediction for prediction in predictions], dtype=float)
    paths = np.array([prediction.path for prediction in predictions])
    groups = np.array([prediction.group or prediction.path for prediction in predictions])
    units = sum_over_units(paths, groups, is_correct)
    interval = compute_mean_interval(units) if units.has_groups else None
    if interval is None:  # or all groups agree: each counts as one image
        interval = wilson_interval(units.mean * len(units.sums), len(units.sums))
    low, high = interval
    num_groups = len(units.sums) if samples.has_groups else None
    return CrossValidation(
        directory, list(folds), predictions, units.mean, (max(0.0, low), min(1.0, high)), num_groups, group_effect
    )


def _iter_predictions(folds: Sequence[ProbeResult], samples: Samples) -> Iterator[FoldPrediction]:
    groups = dict(zip(samples.samples.paths, samples.samples.list_groups(), strict=True))
    for fold, result in enumerate(folds):
        for row in result.run.read_prediction_rows():
            path, probability = row["path"], float(row["probability"])
            yield FoldPrediction(path, groups[path], fold, row["label"], row["prediction"], probability)


def write_predictions(result: CrossValidation) -> None:
    """Write the predictions of all images as CSV into the folder of the folds; `group` only if there are groups."""
    names = [field.name for field in fields(FoldPrediction) if field.name != "group" or result.num_groups is not None]
    rows = [[getattr(prediction, name) for name in names] for prediction in result.predictions]
    write_text(result.directory / PREDICTIONS_FILE, format_rows([names, *rows]))
