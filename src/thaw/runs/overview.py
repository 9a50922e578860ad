"""What a list of many runs shows of each, read from as little as possible. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from thaw.config.errors import UserError
from thaw.config.schema import Recipe
from thaw.runs.reader import DAMAGED
from thaw.runs.run import Run, find_runs

# The names that conf/config.yaml gives to runs and sweeps, and to the jobs of a sweep.
UNIQUE_SUFFIX_PATTERN = re.compile(r"\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_.+_([0-9a-f]{6})")
JOB_PATTERN = re.compile(r"(\d+)_.+")


@dataclass(frozen=True)
class RunOverview:
    """A run in a list. `accuracy` is that of the test images and `seconds` the time of the whole run, both None before
    it is done; `started` is None if the run failed before it began. `problem` says why a run is damaged."""

    directory: Path
    status: str
    dataset: str = ""
    backbone: str = ""
    strategy: str = ""
    accuracy: float | None = None
    seconds: float | None = None
    started: datetime | None = None
    problem: str = ""


def summarize_recipe(recipe: Recipe) -> dict[str, str]:
    """Return the names of a recipe's data set, backbone and strategy, as `run.json` has them for lists."""
    return {"dataset": recipe.dataset.name, "backbone": recipe.backbone.name, "strategy": recipe.strategy.name}


def read_overviews(directory: Path) -> list[RunOverview]:
    """Return the runs in or below `directory`, the newest first; those without a time are last."""
    overviews = map(_read_overview, find_runs(directory))
    return sorted(overviews, key=lambda run: -(run.started.timestamp() if run.started else 0))


def _read_overview(run: Run) -> RunOverview:
    try:
        metrics = run.metrics if run.status == "done" else {}
        if run.status == "done" and not metrics:
            run.check_results()  # raises
        return RunOverview(
            run.directory,
            run.status,
            **_read_names(run),
            accuracy=metrics["test"]["accuracy"] if metrics else None,
            seconds=metrics["timing"]["wall_s"] if metrics else None,
            started=_parse_time(run.record.get("started", "")),
        )
    except UserError as error:
        problem = error.problems[0]
        lines = [f"{Path(problem.subject).name}: {problem.got}", problem.fix]
        return RunOverview(run.directory, DAMAGED, problem="; ".join(filter(None, lines)))


def _read_names(run: Run) -> dict[str, str]:
    """Return the names of data set, backbone and strategy; older versions of thaw have them in `config.yaml` alone."""
    names: dict[str, str] = dict(run.record.get("summary") or {})
    if not names and run.exists:
        names = summarize_recipe(run.recipe)
    if run.is_probe:
        names["strategy"] = "probe"
    return names


def _parse_time(text: str) -> datetime | None:
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%S%z")
    except ValueError:
        return None


def shorten_names(names: Sequence[str]) -> list[str]:
    """Return `names`, paths of runs, as short patterns of the shell that match each of them alone: *3f2a1c for the six
    digits that end the name of a run, *d2542a/3_* for a job of a sweep. Names that a user has chosen stay."""
    patterns = ["/".join(map(_shorten_part, Path(name).parts)) for name in names]
    return [pattern if patterns.count(pattern) == 1 else name for name, pattern in zip(names, patterns, strict=True)]


def _shorten_part(part: str) -> str:
    if match := UNIQUE_SUFFIX_PATTERN.fullmatch(part):
        return f"*{match[1]}"
    return f"{match[1]}_*" if (match := JOB_PATTERN.fullmatch(part)) else part


def format_seconds(seconds: float) -> str:
    """Return a time in its largest unit of 1 or more: 45 s, 12 min, 3 h, 5 d."""
    units: list[tuple[float, str]] = [(86_400, "d"), (3_600, "h"), (60, "min")]
    divisor, unit = next(((size, name) for size, name in units if seconds >= size), (1, "s"))
    return f"{seconds / divisor:.0f} {unit}"


def to_cells(overview: RunOverview, name: str, now: datetime) -> list[Any]:
    """Return the row of a run in a list: name, status, data set, strategy, backbone, accuracy, time, age."""
    age = (now - overview.started).total_seconds() if overview.started else None
    return [
        name,
        overview.status,
        overview.dataset,
        overview.strategy,
        overview.backbone,
        f"{overview.accuracy:.3f}" if overview.accuracy is not None else "",
        format_seconds(overview.seconds) if overview.seconds is not None else "",
        format_seconds(max(0.0, age)) if age is not None else "",
    ]
