"""Runs -> a comparison, as values; nothing is written yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from thaw.comparison.caveats import caveats
from thaw.comparison.configurations import Configuration, configurations_of, tested, values_of
from thaw.comparison.notes import notes
from thaw.comparison.runs import Record
from thaw.comparison.settings import differing_keys, labels_of, settings_of, value_at
from thaw.config.faults import Fault, UserFault

COMMON = (("dataset",), ("backbone",), ("strategy",))


@dataclass(frozen=True)
class Unfinished:
    """A run that is not done: `label` says its settings, `reason` in a line why, `error` all that it left."""

    name: str
    label: str
    status: str
    reason: str
    error: str


@dataclass(frozen=True)
class Comparison:
    """`folder` is where its files are to lie. `keys` are those that differ, and the names of each configuration's
    `values`. `configurations` are ordered by test accuracy. `caveats` say what stands in the way of comparing, `notes`
    how the numbers came about."""

    folder: Path
    subject: str
    keys: tuple[str, ...]
    configurations: tuple[Configuration, ...]
    unfinished: tuple[Unfinished, ...]
    caveats: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def reference(self) -> Configuration:
        return next(one for one in self.configurations if one.is_reference)

    @property
    def page(self) -> Path:
        return self.folder / "comparison.html"


def compared(runs: Sequence[Record], folder: Path) -> Comparison:
    """Raises UserFault where no run is done."""
    done, others = [run for run in runs if run.is_done], [run for run in runs if not run.is_done]
    if not done:
        raise UserFault("nothing to compare: no run is done.", [*_faults(others)])
    settings = [settings_of(run) for run in runs]
    keys = differing_keys(settings)
    found, superseded = configurations_of(done, keys)
    configurations, judged_on = tested(found)
    labels = labels_of(keys, [values_of(run, keys) for run in others])
    return Comparison(
        folder,
        " · ".join(_common(done)),
        tuple(".".join(key) for key in keys),
        tuple(configurations),
        tuple(_unfinished(run, label if run.recipe else "") for run, label in zip(others, labels, strict=True)),
        tuple(caveats(configurations, others, superseded, judged_on)),
        tuple(notes(configurations, judged_on)),
    )


def _faults(runs: Sequence[Record]) -> Iterator[Fault]:
    for run in runs:
        yield Fault(str(run.directory), ": ".join(filter(None, [run.status, reason_of(run.error)])))


def _common(runs: Sequence[Record]) -> Iterator[str]:
    for key in COMMON:
        names = {str(value_at(run.recipe, key)) for run in runs}
        if len(names) == 1:
            yield from names


def _unfinished(run: Record, label: str) -> Unfinished:
    reason = reason_of(run.error)
    if run.status == "running":
        reason = "still running, or ended before it could say so"
    elif run.status == "interrupted":
        reason = f"can be continued: python train.py resume={run.directory}"
    return Unfinished(run.directory.name, label, run.status, reason, run.error)


def reason_of(error: str) -> str:
    """The line that says what happened: of a traceback the last that names an exception, as its message may go on for
    lines; else the first two lines, as thaw's own messages begin with what is wrong and where."""
    lines = [line for line in error.splitlines() if line.strip()]
    if not lines:
        return ""
    if not any(line.startswith("Traceback") for line in lines):
        return " ".join(line.strip() for line in lines[:2])
    raised = [line for before, line in pairwise(lines) if before[0] == " " and line[0] != " "]
    return raised[-1] if raised else lines[-1]
