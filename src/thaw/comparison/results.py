"""The numbers of a comparison: configurations, tests against the reference, caveats and notes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from thaw.comparison.caveats import build_notes, find_caveats
from thaw.comparison.configurations import (
    Configuration,
    format_setting_values,
    group_into_configurations,
    test_against_reference,
)
from thaw.comparison.records import RunResults, extract_reason, iter_problems
from thaw.comparison.settings import build_labels, extract_settings, find_differing_keys, get_value
from thaw.config.errors import UserError

SUBJECT_KEYS = (("dataset",), ("backbone",), ("strategy",))


@dataclass(frozen=True)
class UnfinishedRun:
    """A run that is not done. `label` names its settings, `reason` is a line that says why, `error` the whole text that
    it has recorded."""

    directory: Path
    label: str
    status: str
    reason: str
    error: str

    @property
    def name(self) -> str:
        """The name of the run directory."""
        return self.directory.name


@dataclass(frozen=True)
class ComparisonResults:
    """`subject` names what all runs share. `keys` are the recipe keys that differ; the `values` of each configuration
    belong to them. `configurations` are ordered by test accuracy."""

    subject: str
    keys: tuple[str, ...]
    configurations: tuple[Configuration, ...]
    unfinished_runs: tuple[UnfinishedRun, ...]
    caveats: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def reference(self) -> Configuration:
        """The configuration that all others are tested against."""
        return next(configuration for configuration in self.configurations if configuration.is_reference)


def build_results(runs: Sequence[RunResults]) -> ComparisonResults:
    """Compare `runs`.

    Raises:
        UserError: if no run is done; it names each run with its reason.
    """
    done_runs, unfinished_runs = [run for run in runs if run.is_done], [run for run in runs if not run.is_done]
    if not done_runs:
        raise UserError("nothing to compare: no run is done.", list(iter_problems(unfinished_runs)))
    keys = find_differing_keys([extract_settings(run) for run in runs])
    untested_configurations, superseded_runs = group_into_configurations(done_runs, keys)
    configurations, selection_split = test_against_reference(untested_configurations)
    labels = build_labels(keys, [format_setting_values(run, keys) for run in unfinished_runs])
    return ComparisonResults(
        " · ".join(_iter_common_names(done_runs)),
        tuple(".".join(key) for key in keys),
        tuple(configurations),
        tuple(_build_unfinished_run(run, label) for run, label in zip(unfinished_runs, labels, strict=True)),
        tuple(find_caveats(configurations, unfinished_runs, superseded_runs, selection_split)),
        tuple(build_notes(configurations, selection_split)),
    )


def _iter_common_names(runs: Sequence[RunResults]) -> Iterator[str]:
    for key in SUBJECT_KEYS:
        names = {str(get_value(run.recipe, key)) for run in runs}
        if len(names) == 1:
            yield from names


def _build_unfinished_run(run: RunResults, label: str) -> UnfinishedRun:
    reason = extract_reason(run.error)
    if run.status == "running":
        reason = "still running, or killed before it could record how it ended"
    elif run.status == "interrupted":
        reason = f"can be continued: python train.py resume={run.directory}"
    return UnfinishedRun(run.directory, label if run.recipe else "", run.status, reason, run.error)
