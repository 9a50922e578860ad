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

from thaw.config.faults import Fault, UserFault, nearest
from thaw.training.history_file import read_history
from thaw.training.run import RECORD

DONE, UNREADABLE = "done", "unreadable"
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a tenth of the time, where PyYAML was built with it


@dataclass(frozen=True)
class Predictions:
    """Of the test images: `paths` and `labels` are text [n], `right` is bool [n]; in the order of the paths."""

    paths: np.ndarray
    labels: np.ndarray
    right: np.ndarray

    @cached_property
    def identity(self) -> str:
        """Names these images with these labels, whatever was predicted."""
        lines = (f"{path}\0{label}" for path, label in zip(self.paths, self.labels, strict=True))
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogateescape")).hexdigest()[:16]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        return tuple(np.unique(self.labels).tolist())


NOTHING_PREDICTED = Predictions(np.empty(0, "U1"), np.empty(0, "U1"), np.empty(0, bool))


@dataclass(frozen=True)
class Record:
    """A run directory's files. `about` is run.json. Of a run that is not done, metrics and predictions are left empty;
    of one that failed early, `recipe` too. `error` is as it was written, tracebacks included."""

    directory: Path
    status: str
    error: str
    about: dict[str, Any]
    recipe: dict[str, Any]
    metrics: dict[str, Any]
    history: list[dict[str, str]]
    predictions: Predictions

    @property
    def seed(self) -> int:
        return int(self.about["seed"])

    @property
    def is_done(self) -> bool:
        return self.status == DONE

    @property
    def is_probe(self) -> bool:
        return "probe" in self.about

    def score(self, split: str, metric: str) -> float:
        """nan where the run has no images of `split`."""
        return float(self.metrics.get(split, {}).get(metric, np.nan))


def found_runs(directories: Sequence[Path]) -> list[Path]:
    """The run directories that `directories` are or hold, each once.

    Raises:
        UserFault: where one of them is no folder, or there is no run in it.
    """
    if faults := [*_missing(directories)]:
        raise UserFault("nothing to compare.", faults)
    runs = {folder.resolve(): folder for directory in directories for folder in _runs_in(directory)}
    return list(runs.values())


def _missing(directories: Sequence[Path]) -> Iterator[Fault]:
    for directory in directories:
        if not directory.is_dir():
            beside = [one.name for one in directory.parent.glob("*") if one.is_dir()]
            near = nearest(directory.name, beside)
            yield Fault(str(directory), "no such folder", fix=str(directory.parent / near) if near else "")
        elif not _runs_in(directory):
            yield Fault(str(directory), f"no {RECORD} in it or below", "run directories, sweeps, folders of them")


def _runs_in(directory: Path) -> list[Path]:
    if (directory / RECORD).is_file():
        return [directory]
    return sorted(file.parent for file in directory.rglob(RECORD))


def read_runs(directories: Sequence[Path]) -> list[Record]:
    """In the order in which they were started."""
    return sorted((_read(one) for one in directories), key=lambda run: (run.about.get("started", ""), run.directory))


def _read(directory: Path) -> Record:
    try:
        about = _json(directory / RECORD)
        done = about["status"] == DONE
        return Record(
            directory,
            about["status"],
            about.get("error", ""),
            about,
            _recipe(directory / "config.yaml"),
            _json(directory / "metrics.json") if done else {},
            read_history(directory / "history.csv"),
            _predictions(directory / "predictions.csv") if done else NOTHING_PREDICTED,
        )
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        reason = f"{type(error).__name__}: {error}"
        return Record(directory, UNREADABLE, reason, {}, {}, {}, [], NOTHING_PREDICTED)


def _json(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return content


def _recipe(file: Path) -> dict[str, Any]:
    if not file.is_file():
        return {}
    return yaml.load(file.read_text(encoding="utf-8"), LOADER) or {}


def _predictions(file: Path) -> Predictions:
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = sorted((row["path"], row["label"], row["prediction"]) for row in csv.DictReader(stream))
    paths, labels, predicted = (np.array(column) for column in zip(*rows, strict=True))
    return Predictions(paths, labels, labels == predicted)
