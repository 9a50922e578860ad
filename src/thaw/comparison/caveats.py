"""What stands in the way of comparing: other images, other budgets, other machines, missing runs."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

import numpy as np

from thaw.comparison.configurations import Configuration
from thaw.comparison.records import Record
from thaw.comparison.significance import PairedTest
from thaw.config.errors import format_names

MAX_LISTED = 4
KeyFunction = Callable[[Record], Hashable]


def find_caveats(
    configurations: Sequence[Configuration],
    unfinished_runs: Sequence[Record],
    superseded_runs: Sequence[Record],
    selection_split: str,
) -> Iterator[str]:
    """A sentence or two each, the gravest first. `judged_on` is the split that the reference was chosen on."""
    yield from _find_data_caveats(configurations)
    yield from _find_budget_caveats(configurations)
    yield from _find_run_caveats(configurations, unfinished_runs, superseded_runs)
    if selection_split == "test":
        yield (
            "Not all runs have validation images, so the reference is the best on the test images: its accuracy is "
            "too high by what choosing it gains, and so are the differences to it."
        )
    yield from _find_timing_caveats(configurations)


def _find_data_caveats(configurations: Sequence[Configuration]) -> Iterator[str]:
    """Images are compared between runs of one seed, as a seed may cut its own."""
    checks: list[tuple[str, KeyFunction]] = [
        ("Classes differ: {}. These are different problems.", lambda run: run.predictions.classes),
        (
            "Test images differ: {}. Their accuracies are not comparable, and no test is made between them.",
            _get_test_set_identity,
        ),
        (
            "Train or validation images differ (data fingerprints of the same seed): {}. "
            "A difference may come from the images alone.",
            lambda run: run.metadata["data"]["fingerprint"],
        ),
    ]
    for sentence, key_function in checks:
        if groups := _describe_differing_groups(configurations, key_function):
            yield sentence.format(groups)
            return  # what is graver includes the rest


def _get_test_set_identity(run: Record) -> Hashable:
    return run.predictions.identity


def _describe_differing_groups(configurations: Sequence[Configuration], key_function: KeyFunction) -> str:
    """Of the first seed whose runs differ: who goes with whom. Empty where no seed's do."""
    for seed in sorted({seed for configuration in configurations for seed in configuration.seeds}):
        runs = {
            configuration.label: run
            for configuration in configurations
            for run in configuration.runs
            if run.seed == seed
        }
        groups = _group_labels({label: key_function(run) for label, run in runs.items()})
        if len(groups) > 1:
            return _format_groups([names for _, names in groups])
    return ""


def _group_labels(values: Mapping[str, Hashable]) -> list[tuple[Hashable, list[str]]]:
    groups: dict[Hashable, list[str]] = defaultdict(list)
    for label, value in values.items():
        groups[value].append(label)
    return sorted(groups.items(), key=lambda group: -len(group[1]))


def _format_groups(groups: Sequence[Sequence[str]]) -> str:
    return " against ".join(f"[{format_names(names, MAX_LISTED)}]" for names in groups)


def _find_budget_caveats(configurations: Sequence[Configuration]) -> Iterator[str]:
    measures: list[tuple[str, KeyFunction]] = [
        ("Epochs", _get_planned_epochs),
        ("Train images", lambda run: run.metadata["data"]["images"]["train"]),
    ]
    for name, key_function in measures:
        values = {
            configuration.label: key_function(configuration.runs[0])
            for configuration in configurations
            if not configuration.runs[0].is_probe
        }
        groups = _group_labels(values)
        if len(groups) > 1:
            description = "; ".join(f"{value} in [{format_names(names, MAX_LISTED)}]" for value, names in groups)
            yield f"{name} differ: {description}. More of them alone may explain a difference."
    probe_labels = [configuration.label for configuration in configurations if configuration.runs[0].is_probe]
    if probe_labels and len(probe_labels) < len(configurations):
        yield (
            f"Probes beside trainings: [{format_names(probe_labels, MAX_LISTED)}]. A probe tries many classifiers and keeps "
            "the best on validation images; a training is one try."
        )


def _get_planned_epochs(run: Record) -> int:
    """As planned, so that stopping early is no other budget."""
    return int(run.metadata["plan"][-1]["end"])


def _find_run_caveats(
    configurations: Sequence[Configuration], unfinished_runs: Sequence[Record], superseded_runs: Sequence[Record]
) -> Iterator[str]:
    if unfinished_runs:
        counts = Counter(run.status for run in unfinished_runs)
        description = ", ".join(f"{count} {status}" for status, count in counts.items())
        yield f"Runs that are not done, and count for nothing here: {description}. They are listed below."
    all_seeds = {seed for configuration in configurations for seed in configuration.seeds}
    missing_seeds = {
        configuration.label: sorted(all_seeds - set(configuration.seeds)) for configuration in configurations
    }
    if description := "; ".join(
        f"{label} lacks {_format_seeds(seeds)}" for label, seeds in missing_seeds.items() if seeds
    ):
        yield f"Seeds are missing: {description}. Means are over other seeds; tests are over shared ones."
    if superseded_runs:
        yield (
            "A seed of the same configuration is repeated, which adds nothing, and the run started last counts: left "
            f"out are {format_names([run.directory.name for run in superseded_runs], MAX_LISTED)}."
        )
    if len(all_seeds) == 1:
        yield "One seed: how much another seed would change is not known. Intervals and tests speak of the test images."


def _format_seeds(seeds: Sequence[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {format_names(map(str, seeds), MAX_LISTED)}"


def _find_timing_caveats(configurations: Sequence[Configuration]) -> Iterator[str]:
    runs = [run for configuration in configurations for run in configuration.runs]
    if (
        len(
            {json.dumps([run.metadata.get("hardware"), *_get_threads_and_workers(run)], sort_keys=True) for run in runs}
        )
        > 1
    ):
        yield "Hardware, threads or workers differ: times are not comparable."
    versions = {json.dumps([run.metadata.get("versions"), _get_git_info(run)], sort_keys=True) for run in runs}
    if len(versions) > 1:
        yield f"Versions differ: {_describe_differing_versions(runs)}. Times are not comparable, and results may differ for it."
    resumed_names = [run.directory.name for run in runs if run.metadata.get("resumed")]
    if resumed_names:
        yield f"Times of resumed runs are those since they went on: {format_names(resumed_names, MAX_LISTED)}."


def _get_threads_and_workers(run: Record) -> list[object]:
    trainer = run.recipe.get("trainer", {})
    return [trainer.get("threads"), trainer.get("num_workers")]


def _get_git_info(run: Record) -> object:
    return run.metadata.get("git")


def _describe_differing_versions(runs: Sequence[Record]) -> str:
    versions_by_name: dict[str, set[str]] = defaultdict(set)
    for run in runs:
        for name, version in (run.metadata.get("versions") or {}).items():
            versions_by_name[name].add(version)
        versions_by_name["thaw's commit"].add(str((_get_git_info(run) or {}).get("commit", "unknown"))[:10])  # type: ignore[attr-defined]
    descriptions = [
        f"{name} {', '.join(sorted(versions))}" for name, versions in versions_by_name.items() if len(versions) > 1
    ]
    return "; ".join(descriptions) or "thaw with and without changes since its commit"


INTERVAL_METHODS = {
    "seeds": "Student's t over seeds: what other seeds would give on these test images",
    "images": "Wilson's over test images, marked *: what this network would give on other images of the kind",
}
TEST_METHODS = {
    "seeds": "paired t-test over the shared seeds",
    "images": "exact McNemar (sign) test over the test images, marked *, where fewer than 3 seeds are shared or all "
    "differ by the same",
}


def build_notes(configurations: Sequence[Configuration], selection_split: str) -> Iterator[str]:
    """Sentences; `judged_on` is the split that the reference was chosen on."""
    yield "Ordered by test accuracy, for reading only."
    if selection_split == "val":
        yield "The reference is the best configuration by mean validation accuracy: test images choose nothing."
    if any(len(configuration.runs) > 1 for configuration in configurations):
        yield "Mean ± standard deviation over seeds (n - 1)."
    yield f"95 % intervals: {_describe_methods(INTERVAL_METHODS, (configuration.test_accuracy.sampling_unit for configuration in configurations))}."
    yield from _build_test_notes(
        [configuration.paired_test for configuration in configurations if configuration.paired_test]
    )
    _, counts = np.unique(configurations[0].runs[0].predictions.labels, return_counts=True)
    yield f"The smallest class has {counts.min()} test images: each is {100 / counts.min():.2g} points of its accuracy."
    yield "Seconds: of whole runs, median over seeds."
    yield from _build_feature_notes(
        [value for configuration in configurations for value in configuration.get_scores("timing", "cache_s")]
    )


def _describe_methods(methods: Mapping[str, str], sampling_units: Iterable[str]) -> str:
    used_units = set(sampling_units)
    return "; ".join(text for unit, text in methods.items() if unit in used_units)


def _build_test_notes(tests: Sequence[PairedTest]) -> Iterator[str]:
    if tests:
        correction = f", corrected for {len(tests)} comparisons by Holm's method" if len(tests) > 1 else ""
        yield f"p: against the reference, two-sided{correction}: {_describe_methods(TEST_METHODS, (test.sampling_unit for test in tests))}."


def _build_feature_notes(seconds: Sequence[float]) -> Iterator[str]:
    if any(seconds):
        num_computing_runs = sum(value > 0 for value in seconds)
        yield (
            f"Features of frozen stages took {sum(seconds):.1f} s in all, spent by {num_computing_runs} of {len(seconds)} runs; runs "
            "that found them in the cache would take longer alone."
        )
