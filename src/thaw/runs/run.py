"""The run directory: the one class that opens, reads and writes it. No other package knows its file names."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.schema import Recipe
from thaw.runs import (
    BEST_CHECKPOINT,
    HISTORY_FILE,
    LAST_CHECKPOINT,
    METRICS_FILE,
    PLOTS_DIRECTORY,
    PREDICTIONS_FILE,
    PROBE_FILE,
    RECIPE_FILE,
    RECORD_FILE,
    REPORT_FILE,
    SWEEP_FILE,
    TENSORBOARD_DIRECTORY,
)
from thaw.runs.history import format_history
from thaw.runs.notebook import HtmlReport, render_run
from thaw.runs.predictions import TestPredictions, format_predictions, parse_predictions
from thaw.runs.reader import (
    DAMAGED,
    build_damage_error,
    check_agreement,
    check_history,
    check_predictions,
    read_json,
    read_recipe,
    read_recipe_values,
    read_rows,
)
from thaw.runs.schema import FinishedRecord, Metrics, Record
from thaw.system.files import compute_sha256, write_json, write_text
from thaw.system.portable import shorten_home
from thaw.system.tables import build_data_frame

if TYPE_CHECKING:
    from torch import Tensor

    from thaw.data.samples import Samples

FINISHED_STATUSES = ("done", "pruned")  # such a run is not started again
PREDICTION_COLUMNS = ("path", "label", "prediction", "probability")


class Run:
    """A run directory: read when asked, written while the run trains.

    `rank` is the number of this process among those that train the run together. Only process 0 writes; the methods
    that write do nothing in the others. In a notebook a run shows its metrics and curves.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        recipe: Recipe | None = None,
        record: dict[str, Any] | None = None,
        rank: int = 0,
    ) -> None:
        self.directory, self.rank = Path(directory), rank
        self.has_started = False  # in this process: whether all that training needs was there
        self.previous_texts: dict[str, str] = {}  # of the files that this process changed to resume the run, by name
        if recipe is not None:
            self.recipe = recipe
        if record is not None:
            self.record = record

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that is trained. Keys of version 0.1 are renamed.

        Raises:
            UserError: if `config.yaml` is missing or damaged.
        """
        return read_recipe(self.directory / RECIPE_FILE)

    @cached_property
    def record(self) -> dict[str, Any]:
        """The content of `run.json`: status, command, seed, versions, hardware, data fingerprint, weights, plan.

        Raises:
            UserError: if it is missing or damaged.
        """
        return read_json(self.directory / RECORD_FILE, Record)

    @property
    def recipe_text(self) -> str:
        """The recipe as YAML, as it was written."""
        return (self.directory / RECIPE_FILE).read_text(encoding="utf-8", errors="replace")

    @property
    def name(self) -> str:
        """The name of the directory."""
        return self.directory.name

    @property
    def exists(self) -> bool:
        """Whether a run was started in the directory."""
        return (self.directory / RECIPE_FILE).is_file() and (self.directory / RECORD_FILE).is_file()

    @property
    def has_results(self) -> bool:
        """Whether a training or an evaluation has left something in the directory."""
        names = (BEST_CHECKPOINT, LAST_CHECKPOINT, HISTORY_FILE, METRICS_FILE)
        return any(os.path.lexists(self.directory / name) for name in names)

    @property
    def only_evaluates(self) -> bool:
        """Whether the run is resumed because its metrics or predictions are damaged, and trains no more."""
        last_resume = self.record.get("resumed", [{}])[-1]  # only a time, if version 0.1 or 0.2 resumed the run
        return isinstance(last_resume, dict) and bool(last_resume.get("evaluates_only"))

    @property
    def status(self) -> str:
        """`running`, `done`, `failed`, `interrupted` or `pruned`."""
        return str(self.record["status"])

    @property
    def is_finished(self) -> bool:
        """Whether the run is done or pruned."""
        return self.status in FINISHED_STATUSES

    @property
    def is_probe(self) -> bool:
        """Whether classifiers were fitted to frozen features instead of a training."""
        return "probe" in self.record

    @property
    def best_checkpoint(self) -> Path:
        """The weights of the best epoch."""
        return self.directory / BEST_CHECKPOINT

    @property
    def last_checkpoint(self) -> Path:
        """The state of the last epoch, which a run resumes from."""
        return self.directory / LAST_CHECKPOINT

    @property
    def plots_directory(self) -> Path:
        """The folder of the plots."""
        return self.directory / PLOTS_DIRECTORY

    @property
    def tensorboard_directory(self) -> Path:
        """The folder of the event files."""
        return self.directory / TENSORBOARD_DIRECTORY

    @property
    def probe_trials_path(self) -> Path:
        """The table of all that a probe tried."""
        return self.directory / PROBE_FILE

    @property
    def report_path(self) -> Path:
        """The HTML page of the run."""
        return self.directory / REPORT_FILE

    @property
    def report(self) -> HtmlReport:
        """The page of the run. A notebook shows it; `str(run.report)` is its path."""
        return HtmlReport(self.report_path)

    @property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`: `test` and `val` with accuracy, interval, loss ..., and `timing`. Empty if the
        run has not finished.

        Raises:
            UserError: if the file is damaged.
        """
        file = self.directory / METRICS_FILE
        return read_json(file, Metrics) if os.path.lexists(file) else {}

    @property
    def history(self) -> Any:
        """One row an epoch: phase, learning rates, losses, accuracies, seconds. A pandas data frame if pandas is
        installed, otherwise a list of dicts."""
        return build_data_frame(self.read_history(), text_columns=("phase",))

    @property
    def predictions(self) -> Any:
        """One row a test image: path, label, prediction, probability. A data frame or a list of dicts, as `history`."""
        return build_data_frame(self.read_prediction_rows(), text_columns=("path", "label", "prediction"))

    @property
    def plan(self) -> Any:
        """One row a phase and stage: epochs, trainable, learning rate, weight decay, BatchNorm mode. A data frame or a
        list of dicts, as `history`."""
        phases = self.record.get("plan", [])
        rows = [
            {"phase": phase["name"], "start_epoch": phase["start"] + 1, "end_epoch": phase["end"], **part}
            for phase in phases
            for part in phase["parts"]
        ]
        return build_data_frame(rows)

    def read_recipe_values(self) -> dict[str, Any]:
        """Return the recipe as nested dicts, unchecked, with the keys of version 0.1 renamed; empty if the run failed
        before it had a recipe.

        Raises:
            UserError: if `config.yaml` is damaged.
        """
        file = self.directory / RECIPE_FILE
        return read_recipe_values(file) if os.path.lexists(file) else {}

    def read_history(self) -> list[dict[str, str]]:
        """Return the rows of `history.csv` as text; an empty list before the first epoch ends.

        Raises:
            UserError: if the file is damaged.
        """
        file = self.directory / HISTORY_FILE
        rows = read_rows(file, ("epoch", "val_loss", "val_accuracy")) if os.path.lexists(file) else []
        check_history(file, rows)
        return rows

    def read_test_predictions(self, classes: Sequence[str]) -> TestPredictions:
        """Return `predictions.csv` as arrays, with labels as indices into `classes`.

        Raises:
            UserError: as `read_prediction_rows`, and for a label that is not in `classes`.
        """
        try:
            return parse_predictions(self.read_prediction_rows(), classes)
        except KeyError as error:
            got = f"the label {error} is no class of the checkpoint"
            raise build_damage_error(self.directory / PREDICTIONS_FILE, got) from error

    def read_prediction_rows(self) -> list[dict[str, str]]:
        """Return the rows of `predictions.csv` as text: path, label, prediction, probability.

        Raises:
            UserError: if the file is missing or damaged, or disagrees with `metrics.json`.
        """
        file = self.directory / PREDICTIONS_FILE
        rows = read_rows(file, PREDICTION_COLUMNS)
        check_predictions(file, rows)
        if test_metrics := self.metrics.get("test"):
            num_correct = sum(row["label"] == row["prediction"] for row in rows)
            check_agreement(file, len(rows), num_correct, test_metrics)
        return rows

    def check_results(self) -> None:
        """Raise UserError if the record of a run that is done lacks entries, `metrics.json` or `predictions.csv` is
        missing or damaged, or they disagree."""
        read_json(self.directory / RECORD_FILE, FinishedRecord)
        read_json(self.directory / METRICS_FILE, Metrics)
        self.read_prediction_rows()

    @property
    def needs_evaluation(self) -> bool:
        """Whether the run is done, and its metrics or predictions are damaged."""
        try:
            if self.status == "done":
                self.check_results()
        except UserError:
            return True
        return False

    def update(self, **entries: Any) -> None:
        """Add `entries` to `run.json`, with `~` for the home folder."""
        self.record.update(shorten_home(entries))
        if self.rank == 0:
            write_json(self.directory / RECORD_FILE, self.record)

    def compute_checkpoint_digests(self) -> dict[str, str]:
        """Compute the SHA-256 of each checkpoint by file name, to find damage later."""
        files = (self.best_checkpoint, self.last_checkpoint)
        return {file.name: compute_sha256(file) for file in files if file.is_file()}

    def start(self, **entries: Any) -> None:
        """Record that training begins, with `entries` about data, weights and plan."""
        self.has_started = True
        self.update(**entries)

    def write_recipe(self) -> None:
        """Write `config.yaml`."""
        text = yaml.safe_dump(self.recipe.to_dict(), sort_keys=False, allow_unicode=True)
        self._write_text(RECIPE_FILE, text)

    def write_history(self, rows: Sequence[dict[str, Any]]) -> None:
        """Replace `history.csv` by `rows`, one an epoch, all with the keys of the last row."""
        self._write_text(HISTORY_FILE, format_history(rows))

    def write_metrics(self, metrics: dict[str, Any]) -> None:
        """Write `metrics.json`."""
        if self.rank == 0:
            write_json(self.directory / METRICS_FILE, metrics)

    def write_predictions(self, samples: Samples, logits: Tensor, positions: Tensor) -> None:
        """Write `predictions.csv` from logits [n, classes] of the samples at `positions` [n]."""
        self._write_text(PREDICTIONS_FILE, format_predictions(samples, logits, positions))

    def write_probe_trials(self, text: str) -> None:
        """Write `probe.csv`, all that a probe tried."""
        self._write_text(PROBE_FILE, text)

    def write_report(self, html: str) -> None:
        """Write `report.html`."""
        self._write_text(REPORT_FILE, html)

    def _write_text(self, name: str, text: str) -> None:
        if self.rank == 0:
            write_text(self.directory / name, text)

    def __fspath__(self) -> str:
        return str(self.directory)

    def __repr__(self) -> str:
        status, metrics = self._summarize()
        score = f", test accuracy {metrics['test']['accuracy']:.3f}" if metrics else ""
        return f"Run({str(self.directory)!r}, {status}{score})"

    def _repr_html_(self) -> str:
        return render_run(self.name, *self._summarize(), self.plots_directory / "curves.png")

    def _summarize(self) -> tuple[str, dict[str, Any]]:
        """Return status and metrics to be shown, which must not raise."""
        try:
            return (self.status, self.metrics) if self.exists else ("not started", {})
        except UserError:
            return DAMAGED, {}


def open_run(directory: str | os.PathLike[str]) -> Run:
    """Open the run in `directory`; `~` is the user's home folder.

    Raises:
        UserError: if there is no run in it, with the nearest name of a run beside it as the fix; or if its `run.json`
            or `config.yaml` is damaged.
    """
    run = Run(Path(directory).expanduser())
    if not run.exists:
        raise UserError("No such run.", [build_missing_run_problem(run.directory, str(directory), "")])
    _ = (run.record, run.recipe)
    return run


def build_missing_run_problem(directory: Path, subject: str, prefix: str) -> Problem:
    """Return the problem of a directory without a run. `prefix` is what the fix has before the nearest directory."""
    run_names = sorted(file.parent.name for file in directory.parent.glob(f"*/{RECORD_FILE}"))
    closest_name = find_closest_name(directory.name, run_names)
    valid = f"a run directory; in {directory.parent} there is {format_names(run_names[-5:]) or 'none'}"
    missing_names = [name for name in (RECORD_FILE, RECIPE_FILE) if not (directory / name).is_file()]
    fix = f"{prefix}{directory.parent / closest_name}" if closest_name and closest_name != directory.name else ""
    return Problem(subject, f"no {' and no '.join(missing_names)} in it", valid, fix)


def find_runs(directory: Path) -> list[Run]:
    """Return the run in `directory`, or all runs below it, sorted by path."""
    if is_run(directory):
        return [Run(directory)]
    return [Run(file.parent) for file in sorted(directory.rglob(RECORD_FILE))]


def is_run(directory: Path) -> bool:
    """Return whether a run has left its record in `directory`, even one that failed before it began."""
    return (directory / RECORD_FILE).is_file()


def is_job(directory: Path) -> bool:
    """Return whether the run in `directory` is a job of a sweep."""
    return (directory.parent / SWEEP_FILE).is_file()


def read_status(directory: Path) -> str | None:
    """Return the status of the run in `directory`, or None if there is none that could continue.

    Raises:
        UserError: if its `run.json` is damaged.
    """
    run = Run(directory)
    return run.status if run.exists else None
