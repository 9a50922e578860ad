"""The run directory: the one class that opens, reads and writes it. No other package knows its file names."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.renamed_keys import upgrade_recipe
from thaw.config.schema import Recipe
from thaw.config.validation import validate_recipe
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
    TENSORBOARD_DIRECTORY,
)
from thaw.runs.environment import format_current_time, get_git_revision, get_versions, make_recipe_portable
from thaw.runs.history import format_history, parse_history
from thaw.runs.notebook import HtmlReport, render_run
from thaw.runs.predictions import TestPredictions, format_predictions, parse_predictions
from thaw.system.csv_files import read_rows
from thaw.system.files import compute_sha256, write_json, write_text
from thaw.system.portable import format_traceback, shorten_home
from thaw.system.tables import build_data_frame

if TYPE_CHECKING:
    from torch import Tensor

    from thaw.data.samples import Samples

FINISHED_STATUSES = ("done", "pruned")  # such a run is not started again
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time, if PyYAML was built with it


class TrialPruned(Exception):
    """A search stopped one of its runs early. The message says when and why."""


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
        if recipe is not None:
            self.recipe = recipe
        if record is not None:
            self.record = record

    @cached_property
    def recipe(self) -> Recipe:
        """The recipe that is trained. Keys of version 0.1 are renamed.

        Raises:
            UserError: if there is no readable recipe in the directory.
        """
        try:
            values = upgrade_recipe(yaml.load(self.recipe_text, YAML_LOADER))
        except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
            raise self._build_error("no readable recipe", error) from error
        return validate_recipe(values, rules=())

    @cached_property
    def record(self) -> dict[str, Any]:
        """The content of `run.json`: status, command, seed, versions, hardware, data fingerprint, weights, plan.

        Raises:
            UserError: if it cannot be read.
        """
        try:
            content: dict[str, Any] = self._read_json(RECORD_FILE)
        except (OSError, ValueError) as error:
            raise self._build_error("no readable run.json", error) from error
        return content

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
        run has not finished."""
        return self._read_json(METRICS_FILE) if (self.directory / METRICS_FILE).is_file() else {}

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
        before it had a recipe."""
        if not (self.directory / RECIPE_FILE).is_file():
            return {}
        return upgrade_recipe(yaml.load(self.recipe_text, YAML_LOADER) or {})

    def read_history(self) -> list[dict[str, str]]:
        """Return the rows of `history.csv` as text; an empty list before the first epoch ends."""
        file = self.directory / HISTORY_FILE
        return parse_history(file.read_text(encoding="utf-8")) if file.is_file() else []

    def read_test_predictions(self, classes: Sequence[str]) -> TestPredictions:
        """Return `predictions.csv` as arrays, with labels as indices into `classes`."""
        return parse_predictions(self.read_prediction_rows(), classes)

    def read_prediction_rows(self) -> list[dict[str, str]]:
        """Return the rows of `predictions.csv` as text: path, label, prediction, probability."""
        return self._read_rows(PREDICTIONS_FILE)

    def find_missing_files(self, with_checkpoint: bool = True) -> list[str]:
        """Return the names of the files that a finished run has and this directory lacks."""
        names = [
            RECORD_FILE,
            RECIPE_FILE,
            METRICS_FILE,
            PREDICTIONS_FILE,
            *[BEST_CHECKPOINT] * with_checkpoint,
        ]
        return [name for name in names if not (self.directory / name).is_file()]

    def update(self, **entries: Any) -> None:
        """Add `entries` to `run.json`, with `~` for the home folder."""
        self.record.update(shorten_home(entries))
        if self.rank == 0:
            write_json(self.directory / RECORD_FILE, self.record)

    def compute_checkpoint_digests(self) -> dict[str, str]:
        """Compute the SHA-256 of each checkpoint by file name, to find damage later."""
        files = (self.best_checkpoint, self.last_checkpoint)
        return {file.name: compute_sha256(file) for file in files if file.is_file()}

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

    def _read_json(self, name: str) -> Any:
        return json.loads((self.directory / name).read_text(encoding="utf-8"))

    def _read_rows(self, name: str) -> list[dict[str, str]]:
        with (self.directory / name).open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
            return read_rows(stream)

    def _build_error(self, headline: str, error: Exception) -> UserError:
        got = f"{type(error).__name__}: {error}"
        return UserError(f"{headline}.", [Problem(str(self.directory), got, "a run directory")])

    def __fspath__(self) -> str:
        return str(self.directory)

    def __repr__(self) -> str:
        accuracy = self.metrics.get("test", {}).get("accuracy") if self.exists else None
        score = f", test accuracy {accuracy:.3f}" if accuracy is not None else ""
        return f"Run({str(self.directory)!r}, {self.status if self.exists else 'not started'}{score})"

    def _repr_html_(self) -> str:
        return render_run(self.name, self.status, self.metrics, self.plots_directory / "curves.png")


def create_run(recipe: Recipe, directory: Path, command: str = "") -> Run:
    """Start a run directory for `recipe`. `command` is the command line, recorded in `run.json`.

    Raises:
        UserError: if `directory` already holds a run.
    """
    if (directory / RECIPE_FILE).exists():
        fix = f"resume={directory}, or another hydra.run.dir"
        raise UserError("The run directory is taken.", [Problem(str(directory), "it holds a run", fix=fix)])
    run = Run(directory, make_recipe_portable(recipe), {})
    for folder in (run.best_checkpoint.parent, run.plots_directory, run.tensorboard_directory):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(directory / RECIPE_FILE, yaml.safe_dump(run.recipe.to_dict(), sort_keys=False, allow_unicode=True))
    run.update(
        status="running",
        command=command,
        seed=recipe.seed,
        started=format_current_time(),
        versions=get_versions(),
        git=get_git_revision(),
        **({"notes": recipe.notes} if recipe.notes else {}),
    )
    return run


def open_run(directory: str | os.PathLike[str]) -> Run:
    """Open the run in `directory`.

    Raises:
        UserError: if there is no run in it; the nearest name of a run beside it is the fix.
    """
    run = Run(directory)
    if not run.exists:
        raise UserError("No such run.", [_build_missing_run_problem(run.directory, str(directory), "")])
    return run


def check_resumable(directory: Path) -> None:
    """Raise UserError if there is no run in `directory`, or it has finished."""
    if not (directory / RECORD_FILE).is_file():
        problem = _build_missing_run_problem(directory, f"resume={directory}", "resume=")
        raise UserError("no run to resume.", [problem])
    if (status := Run(directory).status) in FINISHED_STATUSES:
        problem = Problem(f"resume={directory}", f"this run is {status}", fix="start a new one")
        raise UserError("nothing to resume.", [problem])


def _build_missing_run_problem(directory: Path, subject: str, prefix: str) -> Problem:
    run_names = sorted(file.parent.name for file in directory.parent.glob(f"*/{RECORD_FILE}"))
    closest_name = find_closest_name(directory.name, run_names)
    valid = f"a run directory; in {directory.parent} there is {format_names(run_names[-5:]) or 'none'}"
    fix = f"{prefix}{directory.parent / closest_name}" if closest_name else ""
    return Problem(subject, f"no {RECORD_FILE} in it", valid, fix)


def resume_run(directory: Path) -> Run:
    """Open the run in `directory` to continue it.

    Raises:
        UserError: if there is none, it has finished, or its recipe cannot be trained here.
    """
    check_resumable(directory)
    run = Run(directory)
    validate_recipe(run.recipe.to_dict())  # with all rules: the data and weights of a run that trains must be here
    run.update(status="running", resumed=[*run.record.get("resumed", []), format_current_time()])
    return run


def find_runs(directory: Path) -> list[Run]:
    """Return the run in `directory`, or all runs below it, sorted by path."""
    if (directory / RECORD_FILE).is_file():
        return [Run(directory)]
    return [Run(file.parent) for file in sorted(directory.rglob(RECORD_FILE))]


def is_run(directory: Path) -> bool:
    """Return whether a run has left its record in `directory`, even one that failed before it began."""
    return (directory / RECORD_FILE).is_file()


def read_status(directory: Path) -> str | None:
    """Return the status of the run in `directory`, or None if there is none that could continue."""
    run = Run(directory)
    return run.status if run.exists else None


def record_failure(directory: Path, error: str) -> None:
    """Record `error` of a run that failed before it began. A run that began records its own."""
    if read_status(directory) is None:
        write_json(
            directory / RECORD_FILE, {"status": "failed", "ended": format_current_time(), "error": shorten_home(error)}
        )


@contextmanager
def record_status(run: Run) -> Iterator[None]:
    """Write into `run.json` how the run ended, whatever ends it. A pruned run does not raise."""
    try:
        yield
    except TrialPruned as reason:
        run.update(status="pruned", ended=format_current_time(), pruned=str(reason))
        return
    except UserError as error:
        run.update(status="failed", ended=format_current_time(), error=str(error))
        raise
    except Exception:
        run.update(status="failed", ended=format_current_time(), error=format_traceback())
        raise
    except BaseException:
        run.update(status="interrupted", ended=format_current_time())
        raise
    run.update(status="done", ended=format_current_time(), checkpoints=run.compute_checkpoint_digests())
