"""The results of runs, as a comparison reads them: nothing is compared yet."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from thaw.config.errors import Problem, UserError, find_closest_name
from thaw.config.schema import Recipe
from thaw.runs.reader import DAMAGED
from thaw.runs.run import Run
from thaw.runs.run import find_runs as find_runs_below

DONE = "done"


@dataclass(frozen=True)
class Predictions:
    """The predictions of n test images, sorted by path: `paths`, `labels` and `groups` are text [n], `correct` is bool
    [n]. Without groups `groups` are the paths: each image is a group of its own."""

    paths: np.ndarray
    labels: np.ndarray
    groups: np.ndarray
    correct: np.ndarray

    @cached_property
    def identity(self) -> str:
        """A hash of the images and their labels, whatever was predicted."""
        lines = (f"{path}\0{label}" for path, label in zip(self.paths, self.labels, strict=True))
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    def subset(self, mask: np.ndarray) -> Predictions:
        """Return the predictions where `mask`, bool [n], is True."""
        return Predictions(self.paths[mask], self.labels[mask], self.groups[mask], self.correct[mask])

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The labels that occur, sorted."""
        return tuple(np.unique(self.labels).tolist())


EMPTY_PREDICTIONS = Predictions(np.empty(0, "U1"), np.empty(0, "U1"), np.empty(0, "U1"), np.empty(0, bool))


class Replicate(NamedTuple):
    """What the runs of one configuration differ in. `split_seed` and `fold` are None if the recipe has none."""

    seed: int
    split_seed: int | None
    fold: int | None

    def describe(self) -> str:
        """Return the replicate in words, such as "seed 1, fold 2"."""
        split_seed = "" if self.split_seed in (None, 0) else f"split_seed {self.split_seed}"
        fold = "" if self.fold is None else f"fold {self.fold}"
        return ", ".join(filter(None, [f"seed {self.seed}", split_seed, fold]))


@dataclass(frozen=True)
class RunResults:
    """What a run has recorded. `record` is the content of run.json; `recipe` are nested dicts in the words of this
    version of thaw. Metrics and predictions are empty if the run is not done, the recipe too if it failed early.
    `error` is the recorded text, tracebacks included."""

    directory: Path
    status: str
    error: str
    record: dict[str, Any]
    recipe: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, str]]
    predictions: Predictions

    @property
    def name(self) -> str:
        """The name of the run directory."""
        return self.directory.name

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.record["seed"])

    @property
    def replicate(self) -> Replicate:
        """The seed, the seed of the splits and the fold."""
        return Replicate(self.seed, self.recipe.get("dataset", {}).get("split_seed"), self.recipe.get("fold"))

    @property
    def num_train(self) -> int:
        """The number of train images."""
        return int(self.record["data"]["images"]["train"])

    @property
    def is_done(self) -> bool:
        """Whether the run has trained to its end."""
        return self.status == DONE

    @property
    def is_probe(self) -> bool:
        """Whether classifiers were fitted to frozen features instead of a training."""
        return "probe" in self.record

    def get_score(self, split: str, metric: str) -> float:
        """Return a number of metrics.json; nan if the run has no images of `split`."""
        return float(self.metrics.get(split, {}).get(metric, np.nan))


def find_runs(directories: Iterable[Path]) -> list[Run]:
    """Return the runs in or below `directories`, each once.

    Raises:
        UserError: if a directory does not exist or holds no run; it names all of them.
    """
    runs_by_directory = {directory: _find_runs(directory) for directory in directories}
    if problems := [_build_directory_problem(directory) for directory, runs in runs_by_directory.items() if not runs]:
        raise UserError("nothing to compare.", problems)
    unique_runs = {run.directory.resolve(): run for runs in runs_by_directory.values() for run in runs}
    return list(unique_runs.values())


def _find_runs(directory: Path) -> list[Run]:
    return find_runs_below(directory) if directory.is_dir() else []


def _build_directory_problem(directory: Path) -> Problem:
    if directory.is_dir():
        return Problem(str(directory), "no run.json in it or below", "run directories, sweeps, folders of them")
    siblings = [sibling.name for sibling in directory.parent.glob("*") if sibling.is_dir()]
    closest_name = find_closest_name(directory.name, siblings)
    fix = str(directory.parent / closest_name) if closest_name else ""
    return Problem(str(directory), "no such folder", fix=fix)


def read_results(runs: Iterable[Run]) -> list[RunResults]:
    """Return the results of `runs` in the order in which they were started. A run that cannot be read has the status
    `damaged` and the reason as its error."""
    return sorted(map(_read_run, runs), key=lambda run: (run.record.get("started", ""), run.directory))


def _read_run(run: Run) -> RunResults:
    try:
        is_done = run.status == DONE
        if is_done:
            run.check_results()
        return RunResults(
            run.directory,
            run.status,
            run.record.get("error", ""),
            run.record,
            _fill_defaults(run),
            run.metrics if is_done else {},
            run.read_history(),
            _build_predictions(run.read_prediction_rows()) if is_done else EMPTY_PREDICTIONS,
        )
    except UserError as error:
        problem = error.problems[0]
        reason = "; ".join(filter(None, [f"{Path(problem.subject).name}: {problem.got}", problem.fix]))
    return RunResults(run.directory, DAMAGED, reason, {}, {}, {}, [], EMPTY_PREDICTIONS)


def _fill_defaults(run: Run) -> dict[str, Any]:
    """Return the recipe of `run` with the keys that did not exist yet when an older version of thaw wrote it. A recipe
    of a newer version, with more keys, stays as it is."""
    recipe = run.read_recipe_values()
    try:
        return Recipe.model_validate(recipe).to_dict() if recipe else {}
    except ValidationError as error:
        if all(detail["type"] == "extra_forbidden" for detail in error.errors()):
            return recipe
    return run.recipe.to_dict()  # raises a UserError with what is wrong


def _build_predictions(rows: Sequence[Mapping[str, str]]) -> Predictions:
    cells = ((row["path"], row["label"], row.get("group") or row["path"], row["prediction"]) for row in rows)
    paths, labels, groups, predictions = (np.array(column) for column in zip(*sorted(cells), strict=True))
    return Predictions(paths, labels, groups, labels == predictions)


def iter_problems(runs: Iterable[RunResults]) -> Iterator[Problem]:
    """Yield for each run that is not done its status and reason."""
    for run in runs:
        yield Problem(str(run.directory), ": ".join(filter(None, [run.status, extract_reason(run.error)])))


def extract_reason(error: str) -> str:
    """Return the line of `error` that says what happened.

    In a traceback it is the last line that names an exception, because the message of an exception may have several
    lines. Otherwise it is the first two lines: thaw's own messages begin with what is wrong and where.
    """
    lines = [line for line in error.splitlines() if line.strip()]
    if not lines:
        return ""
    if not any(line.startswith("Traceback") for line in lines):
        return " ".join(line.strip() for line in lines[:2])
    exception_lines = [line for previous_line, line in pairwise(lines) if previous_line[0] == " " and line[0] != " "]
    return exception_lines[-1] if exception_lines else lines[-1]
