"""The numbers of a comparison: configurations, tests against the reference, caveats and notes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from thaw.comparison.caveats import find_caveats
from thaw.comparison.configurations import (
    Configuration,
    format_setting_values,
    group_into_configurations,
    test_against_reference,
)
from thaw.comparison.notes import build_notes
from thaw.comparison.records import RunResults, extract_reason, iter_problems
from thaw.comparison.settings import build_labels, extract_settings, find_differing_keys, get_value
from thaw.comparison.verdict import describe_verdict
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
    """Runs of one data set. `subject` names what all share. `verdict` is a sentence: what won, by how much, and whether
    chance explains it. `keys` are the recipe keys that differ; the `values` of each configuration belong to them.
    `configurations` are ordered by test accuracy."""

    dataset: str
    subject: str
    verdict: str
    keys: tuple[str, ...]
    configurations: tuple[Configuration, ...]
    unfinished_runs: tuple[UnfinishedRun, ...]
    caveats: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def reference(self) -> Configuration:
        """The configuration that all others are tested against."""
        return next(configuration for configuration in self.configurations if configuration.is_reference)


def build_results(runs: Sequence[RunResults]) -> list[ComparisonResults]:
    """Compare `runs`, each with those of the same data set: a difference across data sets means nothing. The data set
    with the most runs is first. A run that is not done is with its data set, or with the first one.

    Raises:
        UserError: if no run is done; it names each run with its reason.
    """
    done_runs, unfinished_runs = [run for run in runs if run.is_done], [run for run in runs if not run.is_done]
    if not done_runs:
        raise UserError("nothing to compare: no run is done.", list(iter_problems(unfinished_runs)))
    groups = sorted(_group_by_dataset(done_runs), key=lambda group: -len(group[1]))
    datasets = [dataset for dataset, _ in groups]
    unfinished_by_group: dict[int, list[RunResults]] = defaultdict(list)
    for run in unfinished_runs:
        dataset = _get_dataset(run)
        unfinished_by_group[datasets.index(dataset) if dataset in datasets else 0].append(run)
    return [
        _build_group(dataset, group_runs, unfinished_by_group[index])
        for index, (dataset, group_runs) in enumerate(groups)
    ]


def _group_by_dataset(runs: Sequence[RunResults]) -> list[tuple[str, list[RunResults]]]:
    """Group runs of data sets with the same name, number of classes and, at least in part, classes of the test images:
    a fold or another split need not test every class."""
    groups: list[tuple[str, int, set[str], list[RunResults]]] = []
    for run in runs:
        dataset, num_classes = _get_dataset(run), run.record["data"]["classes"]
        classes, group_runs = set(run.predictions.classes), [run]
        for group in [group for group in groups if group[:2] == (dataset, num_classes) and group[2] & classes]:
            groups.remove(group)
            classes, group_runs = group[2] | classes, [*group[3], *group_runs]
        groups.append((dataset, num_classes, classes, group_runs))
    position = {run.directory: index for index, run in enumerate(runs)}
    return [
        (dataset, sorted(group_runs, key=lambda run: position[run.directory])) for dataset, _, _, group_runs in groups
    ]


def _get_dataset(run: RunResults) -> str:
    return str(get_value(run.recipe, ("dataset",))) if run.recipe else ""


def _build_group(
    dataset: str, done_runs: Sequence[RunResults], unfinished_runs: Sequence[RunResults]
) -> ComparisonResults:
    keys = find_differing_keys([extract_settings(run) for run in done_runs])
    untested_configurations, superseded_runs = group_into_configurations(done_runs, keys)
    configurations, selection_split = test_against_reference(untested_configurations)
    all_keys = find_differing_keys([extract_settings(run) for run in [*done_runs, *unfinished_runs]])
    labels = build_labels(all_keys, [format_setting_values(run, all_keys) for run in unfinished_runs])
    key_names = tuple(".".join(key) for key in keys)
    return ComparisonResults(
        dataset,
        " · ".join(_iter_common_names(done_runs)),
        describe_verdict(configurations),
        key_names,
        tuple(configurations),
        tuple(_build_unfinished_run(run, label) for run, label in zip(unfinished_runs, labels, strict=True)),
        tuple(find_caveats(configurations, unfinished_runs, superseded_runs, selection_split, key_names)),
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
