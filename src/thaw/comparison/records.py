"""What run directories say: found and read, not yet judged."""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from thaw.config.errors import Problem, UserError, find_closest_name
from thaw.runs.run import RECORD_FILE, Run

DONE, UNREADABLE = "done", "unreadable"
YAML_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time, where PyYAML was built with it


@dataclass(frozen=True)
class Predictions:
    """Of the test images: `paths` and `labels` are text [n], `right` is bool [n]; in the order of the paths."""

    paths: np.ndarray
    labels: np.ndarray
    correct: np.ndarray

    @cached_property
    def identity(self) -> str:
        """Names these images with these labels, whatever was predicted."""
        lines = (f"{path}\0{label}" for path, label in zip(self.paths, self.labels, strict=True))
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(np.unique(self.labels).tolist())


EMPTY_PREDICTIONS = Predictions(np.empty(0, "U1"), np.empty(0, "U1"), np.empty(0, bool))


@dataclass(frozen=True)
class Record:
    """A run directory's files. `about` is run.json. Of a run that is not done, metrics and predictions are left empty;
    of one that failed early, `recipe` too. `error` is as it was written, tracebacks included."""

    directory: Path
    status: str
    error: str
    metadata: dict[str, Any]
    recipe: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, str]]
    predictions: Predictions

    @property
    def seed(self) -> int:
        return int(self.metadata["seed"])

    @property
    def is_done(self) -> bool:
        return self.status == DONE

    @property
    def is_probe(self) -> bool:
        return "probe" in self.metadata

    def get_score(self, split: str, metric: str) -> float:
        """nan where the run has no images of `split`."""
        return float(self.metrics.get(split, {}).get(metric, np.nan))


def find_runs(directories: Sequence[Path]) -> list[Path]:
    """The run directories that `directories` are or hold, each once.

    Raises:
        UserFault: where one of them is no folder, or there is no run in it.
    """
    if problems := [*_iter_directory_problems(directories)]:
        raise UserError("nothing to compare.", problems)
    runs = {folder.resolve(): folder for directory in directories for folder in _find_run_directories(directory)}
    return list(runs.values())


def _iter_directory_problems(directories: Sequence[Path]) -> Iterator[Problem]:
    for directory in directories:
        if not directory.is_dir():
            siblings = [sibling.name for sibling in directory.parent.glob("*") if sibling.is_dir()]
            suggestion = find_closest_name(directory.name, siblings)
            yield Problem(
                str(directory), "no such folder", fix=str(directory.parent / suggestion) if suggestion else ""
            )
        elif not _find_run_directories(directory):
            yield Problem(
                str(directory), f"no {RECORD_FILE} in it or below", "run directories, sweeps, folders of them"
            )


def _find_run_directories(directory: Path) -> list[Path]:
    if (directory / RECORD_FILE).is_file():
        return [directory]
    return sorted(file.parent for file in directory.rglob(RECORD_FILE))


def read_runs(directories: Sequence[Path]) -> list[Record]:
    """In the order in which they were started."""
    return sorted(
        (_read_record(directory) for directory in directories),
        key=lambda run: (run.metadata.get("started", ""), run.directory),
    )


def _read_record(directory: Path) -> Record:
    try:
        metadata = _read_json(directory / RECORD_FILE)
        is_done = metadata["status"] == DONE
        return Record(
            directory,
            metadata["status"],
            metadata.get("error", ""),
            metadata,
            _read_recipe(directory / "config.yaml"),
            _read_json(directory / "metrics.json") if is_done else {},
            Run(directory).read_history(),
            _read_predictions(directory / "predictions.csv") if is_done else EMPTY_PREDICTIONS,
        )
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        reason = f"{type(error).__name__}: {error}"
        return Record(directory, UNREADABLE, reason, {}, {}, {}, [], EMPTY_PREDICTIONS)


def _read_json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _read_recipe(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    return yaml.load(file.read_text(encoding="utf-8"), YAML_LOADER) or {}


def _read_predictions(file: Path) -> Predictions:
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = sorted((row["path"], row["label"], row["prediction"]) for row in csv.DictReader(stream))
    paths, labels, predictions = (np.array(column) for column in zip(*rows, strict=True))
    return Predictions(paths, labels, labels == predictions)
