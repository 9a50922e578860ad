"""Runs -> a comparison, as values; nothing is written yet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from thaw.comparison.caveats import build_notes, find_caveats
from thaw.comparison.configurations import (
    Configuration,
    format_setting_values,
    group_into_configurations,
    test_against_reference,
)
from thaw.comparison.records import Record
from thaw.comparison.settings import build_labels, extract_settings, find_differing_keys, get_value
from thaw.config.errors import Problem, UserError

SUBJECT_KEYS = (("dataset",), ("backbone",), ("strategy",))


@dataclass(frozen=True)
class UnfinishedRun:
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

    output_dir: Path
    subject: str
    keys: tuple[str, ...]
    configurations: tuple[Configuration, ...]
    unfinished_runs: tuple[UnfinishedRun, ...]
    caveats: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def reference(self) -> Configuration:
        return next(configuration for configuration in self.configurations if configuration.is_reference)

    @property
    def page_path(self) -> Path:
        return self.output_dir / "comparison.html"


def build_comparison(runs: Sequence[Record], output_dir: Path) -> Comparison:
    """Raises UserFault where no run is done."""
    done_runs, unfinished_runs = [run for run in runs if run.is_done], [run for run in runs if not run.is_done]
    if not done_runs:
        raise UserError("nothing to compare: no run is done.", [*_iter_problems(unfinished_runs)])
    settings = [extract_settings(run) for run in runs]
    keys = find_differing_keys(settings)
    untested_configurations, superseded_runs = group_into_configurations(done_runs, keys)
    configurations, selection_split = test_against_reference(untested_configurations)
    labels = build_labels(keys, [format_setting_values(run, keys) for run in unfinished_runs])
    return Comparison(
        output_dir,
        " · ".join(_iter_common_names(done_runs)),
        tuple(".".join(key) for key in keys),
        tuple(configurations),
        tuple(
            _build_unfinished_run(run, label if run.recipe else "")
            for run, label in zip(unfinished_runs, labels, strict=True)
        ),
        tuple(find_caveats(configurations, unfinished_runs, superseded_runs, selection_split)),
        tuple(build_notes(configurations, selection_split)),
    )


def _iter_problems(runs: Sequence[Record]) -> Iterator[Problem]:
    for run in runs:
        yield Problem(str(run.directory), ": ".join(filter(None, [run.status, extract_reason(run.error)])))


def _iter_common_names(runs: Sequence[Record]) -> Iterator[str]:
    for key in SUBJECT_KEYS:
        names = {str(get_value(run.recipe, key)) for run in runs}
        if len(names) == 1:
            yield from names


def _build_unfinished_run(run: Record, label: str) -> UnfinishedRun:
    reason = extract_reason(run.error)
    if run.status == "running":
        reason = "still running, or ended before it could say so"
    elif run.status == "interrupted":
        reason = f"can be continued: python train.py resume={run.directory}"
    return UnfinishedRun(run.directory.name, label, run.status, reason, run.error)


def extract_reason(error: str) -> str:
    """The line that says what happened: of a traceback the last that names an exception, as its message may go on for
    lines; else the first two lines, as thaw's own messages begin with what is wrong and where."""
    lines = [line for line in error.splitlines() if line.strip()]
    if not lines:
        return ""
    if not any(line.startswith("Traceback") for line in lines):
        return " ".join(line.strip() for line in lines[:2])
    exception_lines = [line for previous_line, line in pairwise(lines) if previous_line[0] == " " and line[0] != " "]
    return exception_lines[-1] if exception_lines else lines[-1]
