"""Sentences about a comparison: what limits it (other images, other budgets, missing runs) and how its numbers were
computed."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from thaw.comparison.configurations import Configuration
from thaw.comparison.records import RunResults
from thaw.comparison.significance import PairedTest
from thaw.config.errors import format_names

MAX_LISTED = 4
KeyFunction = Callable[[RunResults], Hashable]
INTERVAL_METHODS = {
    "seeds": "Student's t over seeds: what other seeds would give on these test images",
    "images": "Wilson's over test images, marked *: what this network would give on other images of the same kind",
}
TEST_METHODS = {
    "seeds": "paired t-test over the shared seeds",
    "images": "exact McNemar (sign) test over the test images, marked *, if fewer than 3 seeds are shared or all "
    "differ by the same amount",
}


def find_caveats(
    configurations: Sequence[Configuration],
    unfinished_runs: Sequence[RunResults],
    superseded_runs: Sequence[RunResults],
    selection_split: str,
) -> Iterator[str]:
    """Yield a sentence or two for each limit of the comparison, the most serious first. `selection_split` is the split
    that chose the reference."""
    yield from _find_data_caveats(configurations)
    yield from _find_budget_caveats(configurations)
    yield from _find_run_caveats(configurations, unfinished_runs, superseded_runs)
    if selection_split == "test":
        yield (
            "Not all runs have validation images, so the reference is the best on the test images. Choosing it there "
            "makes its accuracy, and the differences to it, too high."
        )
    yield from _find_timing_caveats(configurations)


def _find_data_caveats(configurations: Sequence[Configuration]) -> Iterator[str]:
    """Compare the images of runs with the same seed, because a seed may draw its own splits."""
    checks: list[tuple[str, KeyFunction]] = [
        ("Classes differ: {}. These are different problems.", lambda run: run.predictions.classes),
        (
            "Test images differ: {}. Their accuracies are not comparable and are not tested against each other.",
            lambda run: run.predictions.identity,
        ),
        (
            "Train or validation images differ (data fingerprints of the same seed): {}. "
            "The images alone may explain a difference.",
            lambda run: run.record["data"]["fingerprint"],
        ),
    ]
    for sentence, key_function in checks:
        if groups := _describe_differing_groups(configurations, key_function):
            yield sentence.format(groups)
            return  # the most serious difference implies the others


def _describe_differing_groups(configurations: Sequence[Configuration], key_function: KeyFunction) -> str:
    """Return which configurations agree, for the first seed whose runs differ; empty if all runs of a seed agree."""
    for seed in sorted({seed for configuration in configurations for seed in configuration.seeds}):
        runs = {
            configuration.label: run
            for configuration in configurations
            for run in configuration.runs
            if run.seed == seed
        }
        groups = _group_labels({label: key_function(run) for label, run in runs.items()})
        if len(groups) > 1:
            return " against ".join(_format_labels(labels) for _, labels in groups)
    return ""


def _group_labels(values: Mapping[str, Hashable]) -> list[tuple[Hashable, list[str]]]:
    """Return pairs of a value and the labels that have it, the largest group first."""
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for label, value in values.items():
        groups[value].append(label)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _format_labels(labels: Sequence[str]) -> str:
    return f"[{format_names(labels, MAX_LISTED)}]"


def _find_budget_caveats(configurations: Sequence[Configuration]) -> Iterator[str]:
    trainings = [configuration for configuration in configurations if not configuration.runs[0].is_probe]
    measures: list[tuple[str, KeyFunction]] = [
        ("Epochs", _get_planned_epochs),
        ("Train images", lambda run: run.record["data"]["images"]["train"]),
    ]
    for name, key_function in measures:
        groups = _group_labels({training.label: key_function(training.runs[0]) for training in trainings})
        if len(groups) > 1:
            description = "; ".join(f"{value} in {_format_labels(labels)}" for value, labels in groups)
            yield f"{name} differ: {description}. A larger number alone may explain a difference."
    probe_labels = [configuration.label for configuration in configurations if configuration.runs[0].is_probe]
    if probe_labels and trainings:
        yield (
            f"Probes are compared with trainings: {_format_labels(probe_labels)}. A probe fits many classifiers and "
            "selects the best on the validation images; a training is one attempt."
        )


def _get_planned_epochs(run: RunResults) -> int:
    """Return the planned epochs: early stopping does not make the budget smaller."""
    return int(run.record["plan"][-1]["end"])


def _find_run_caveats(
    configurations: Sequence[Configuration],
    unfinished_runs: Sequence[RunResults],
    superseded_runs: Sequence[RunResults],
) -> Iterator[str]:
    if unfinished_runs:
        counts = Counter(run.status for run in unfinished_runs)
        description = ", ".join(f"{count} {status}" for status, count in counts.items())
        yield f"Some runs are not done and are left out of all numbers: {description}. They are listed below."
    all_seeds = {seed for configuration in configurations for seed in configuration.seeds}
    if description := _describe_missing_seeds(configurations, all_seeds):
        yield f"Seeds are missing: {description}. Means are over different seeds; tests use the shared ones."
    if superseded_runs:
        names = format_names([run.name for run in superseded_runs], MAX_LISTED)
        yield (
            "A configuration was run twice with the same seed, which adds no information. The run that started last "
            f"is used; these are left out: {names}."
        )
    if len(all_seeds) == 1:
        yield "There is one seed: how much another seed would change is unknown. Intervals and tests are over images."


def _describe_missing_seeds(configurations: Sequence[Configuration], all_seeds: set[int]) -> str:
    missing_seeds = {
        configuration.label: sorted(all_seeds - set(configuration.seeds)) for configuration in configurations
    }
    return "; ".join(f"{label} lacks {_format_seeds(seeds)}" for label, seeds in missing_seeds.items() if seeds)


def _format_seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {format_names(map(str, seeds), MAX_LISTED)}"


def _find_timing_caveats(configurations: Sequence[Configuration]) -> Iterator[str]:
    runs = [run for configuration in configurations for run in configuration.runs]
    if _count_different([[run.record.get("hardware"), *_get_threads_and_workers(run)] for run in runs]) > 1:
        yield "Hardware, threads or workers differ: times are not comparable."
    if _count_different([[run.record.get("versions"), run.record.get("git")] for run in runs]) > 1:
        versions = _describe_differing_versions(runs)
        yield f"Versions differ: {versions}. Times are not comparable, and results may differ."
    continued_names = [run.name for run in runs if _has_more_epochs(run)]
    if continued_names:
        names = format_names(continued_names, MAX_LISTED)
        yield f"Continued with another number of epochs than they began with: {names}. Their schedules differ."
    resumed_names = [run.name for run in runs if run.record.get("resumed")]
    if resumed_names:
        names = format_names(resumed_names, MAX_LISTED)
        yield f"The times of resumed runs are counted since they were resumed: {names}."


def _has_more_epochs(run: RunResults) -> bool:
    """Return whether the run was resumed with another number of epochs."""
    entries = [entry for entry in run.record.get("resumed", []) if isinstance(entry, Mapping)]
    return any(override.startswith("trainer.epochs=") for entry in entries for override in entry["overrides"])


def _count_different(values: Iterable[object]) -> int:
    return len({json.dumps(value, sort_keys=True) for value in values})


def _get_threads_and_workers(run: RunResults) -> list[object]:
    trainer = run.recipe.get("trainer", {})
    return [trainer.get("threads"), trainer.get("num_workers")]


def _describe_differing_versions(runs: Sequence[RunResults]) -> str:
    versions_by_name: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for name, version in (run.record.get("versions") or {}).items():
            versions_by_name[name].add(version)
        commit = (run.record.get("git") or {}).get("commit", "unknown")
        versions_by_name["thaw's commit"].add(str(commit)[:10])
    descriptions = [
        f"{name} {', '.join(sorted(versions))}" for name, versions in versions_by_name.items() if len(versions) > 1
    ]
    return "; ".join(descriptions) or "thaw with and without changes since its commit"


def build_notes(configurations: Sequence[Configuration], selection_split: str) -> Iterator[str]:
    """Yield sentences on how the numbers were computed. `selection_split` is the split that chose the reference."""
    yield "The rows are ordered by test accuracy, for reading only."
    if selection_split == "val":
        yield "The reference is the best configuration by mean validation accuracy: test images choose nothing."
    if any(len(configuration.runs) > 1 for configuration in configurations):
        yield "Accuracies are mean ± standard deviation over seeds (n - 1)."
    interval_units = (configuration.test_accuracy.sampling_unit for configuration in configurations)
    yield f"95 % intervals: {_describe_methods(INTERVAL_METHODS, interval_units)}."
    yield from _build_test_notes(
        [configuration.paired_test for configuration in configurations if configuration.paired_test]
    )
    _, counts = np.unique(configurations[0].runs[0].predictions.labels, return_counts=True)
    yield (
        f"The smallest class has {counts.min()} test images: each is {100 / counts.min():.2g} percentage points of its "
        "accuracy."
    )
    yield "Seconds are those of whole runs, the median over seeds."
    yield from _build_feature_notes(
        [value for configuration in configurations for value in configuration.get_scores("timing", "cache_s")]
    )


def _describe_methods(methods: Mapping[str, str], sampling_units: Iterable[str]) -> str:
    used_units = set(sampling_units)
    return "; ".join(text for unit, text in methods.items() if unit in used_units)


def _build_test_notes(tests: Sequence[PairedTest]) -> Iterator[str]:
    if tests:
        correction = f", corrected for {len(tests)} comparisons by Holm's method" if len(tests) > 1 else ""
        methods = _describe_methods(TEST_METHODS, (test.sampling_unit for test in tests))
        yield f"p values are two-sided, against the reference{correction}: {methods}."


def _build_feature_notes(seconds: Sequence[float]) -> Iterator[str]:
    if any(seconds):
        num_computing_runs = sum(value > 0 for value in seconds)
        yield (
            f"Computing the features of frozen stages took {sum(seconds):.1f} s in total, in {num_computing_runs} of "
            f"{len(seconds)} runs. Runs that read them from the cache would take longer alone."
        )
