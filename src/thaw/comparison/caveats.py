"""Sentences on what limits a comparison: other images, other budgets, missing runs."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence

from thaw.comparison.configurations import Configuration
from thaw.comparison.records import Replicate, RunResults
from thaw.comparison.significance import PairedTest
from thaw.comparison.split_effect import describe_split_effects
from thaw.config.errors import format_count, format_names

MAX_LISTED = 4
KeyFunction = Callable[[RunResults], Hashable]
CORRECTIONS = {"excluded": "left out by data.exclude", "relabeled": "relabeled by data.relabel"}


def find_caveats(
    configurations: Sequence[Configuration],
    unfinished_runs: Sequence[RunResults],
    superseded_runs: Sequence[RunResults],
    selection_split: str,
    keys: Sequence[str],
) -> Iterator[str]:
    """Yield a sentence or two for each limit of the comparison, the most serious first. `selection_split` is the split
    that chose the reference, `keys` are the differing keys."""
    yield from describe_split_effects(configurations, keys)
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
    """Compare the images of runs with the same seed, split and fold."""
    if any(_get_corrections(run) != _get_corrections(configurations[0].runs[0]) for run in _iter_runs(configurations)):
        yield _describe_corrections(configurations)
        return
    checks: list[tuple[str, KeyFunction]] = [
        (
            "Classes of the test images differ: {}. Accuracies are over other classes.",
            lambda run: run.predictions.classes,
        ),
        (
            "Test images differ: {}. Their accuracies are not comparable; a test needs images that both have.",
            lambda run: run.predictions.identity,
        ),
        (
            "Train or validation images differ (data fingerprints of the same seed): {}. The images alone may explain "
            "a difference.",
            lambda run: run.record["data"]["fingerprint"],
        ),
    ]
    for sentence, key_function in checks:
        if groups := _describe_differing_groups(configurations, key_function):
            yield sentence.format(groups)
            return  # the most serious difference implies the others


def _describe_differing_groups(configurations: Sequence[Configuration], key_function: KeyFunction) -> str:
    """Return which configurations agree, for the first seed, split and fold whose runs differ; empty if all agree."""
    for replicate in dict.fromkeys(run.replicate for run in _iter_runs(configurations)):
        runs = {
            configuration.label: run
            for configuration in configurations
            for run in configuration.runs
            if run.replicate == replicate
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
    if description := _describe_missing_runs(configurations):
        yield f"Runs are missing: {description}. Means are over different runs; tests use the shared ones."
    yield from _find_mixed_designs(configurations)
    if description := _describe_missing_folds(configurations):
        yield f"Folds are missing: {description}. The accuracy is that of the images of the other folds."
    if superseded_runs:
        names = format_names([run.name for run in superseded_runs], MAX_LISTED)
        yield (
            "A configuration was run twice with the same seed and split, which adds no information. The run that "
            f"started last is used; these are left out: {names}."
        )
    if len({run.seed for run in _iter_runs(configurations)}) == 1:
        units = {row.test_accuracy.sampling_unit for row in configurations}
        units |= {test.sampling_unit for test in _list_tests(configurations)}
        over = " or ".join(sorted(units, reverse=True))
        yield f"There is one seed: how much another seed would change is unknown. Intervals and tests are over {over}."


def _iter_runs(configurations: Sequence[Configuration]) -> Iterator[RunResults]:
    return (run for configuration in configurations for run in configuration.runs)


def _list_tests(configurations: Sequence[Configuration]) -> list[PairedTest]:
    return [configuration.paired_test for configuration in configurations if configuration.paired_test]


def _find_mixed_designs(configurations: Sequence[Configuration]) -> Iterator[str]:
    """Say if configurations share test images in different ways."""
    texts: dict[str, str] = {
        "seeds": "one set of test images",
        "resamples": "several, overlapping sets of test images",
        "folds": "folds",
    }
    repeated = {row.label: texts[row.design] for row in configurations if len(row.runs) > 1}
    groups = _group_labels(repeated)
    if len(groups) > 1:
        description = "; ".join(f"{text} in {_format_labels(labels)}" for text, labels in groups)
        yield (
            f"Designs are mixed: {description}. Spreads and intervals measure different things, and a test uses only "
            "the runs of two configurations with the same seed, split and fold on common test images."
        )


def _describe_missing_runs(configurations: Sequence[Configuration]) -> str:
    all_replicates = dict.fromkeys(run.replicate for run in _iter_runs(configurations))
    missing = {
        configuration.label: [replicate for replicate in all_replicates if replicate not in configuration.replicates]
        for configuration in configurations
    }
    return "; ".join(
        f"{label} lacks {_format_replicates(replicates)}" for label, replicates in missing.items() if replicates
    )


def _format_replicates(replicates: Sequence[Replicate]) -> str:
    return format_names([replicate.describe() for replicate in replicates], MAX_LISTED)


def _describe_missing_folds(configurations: Sequence[Configuration]) -> str:
    """Return which folds of a cross-validation no run tests, by configuration."""
    descriptions = []
    for configuration in configurations:
        num_folds = configuration.runs[0].recipe.get("folds")
        folds_by_draw: dict[Replicate, set[int | None]] = defaultdict(set)
        for run in configuration.runs if num_folds is not None else ():
            folds_by_draw[run.replicate._replace(fold=None)].add(run.replicate.fold)
        for replicate, folds in folds_by_draw.items():
            missing = [str(fold) for fold in range(num_folds or 0) if fold not in folds]
            prefix = f"{replicate.describe()} of " if len(folds_by_draw) > 1 else ""
            names = format_names(missing, MAX_LISTED)
            descriptions += [f"{prefix}{configuration.label} lacks {names} of {num_folds}"] if missing else []
    return "; ".join(descriptions)


def _get_corrections(run: RunResults) -> tuple[object, ...]:
    data = run.record["data"]
    return tuple((data.get(name) or {}).get("sha256") for name in CORRECTIONS)


def _describe_corrections(configurations: Sequence[Configuration]) -> str:
    """Say which images were left out or relabeled, where that differs, and what the tests compare then."""
    labels_by_text = _group_labels({row.label: _describe_correction(row.runs[0]) for row in configurations})
    groups = "; ".join(f"{text} in {_format_labels(labels)}" for text, labels in labels_by_text)
    num_left_out = max(configuration.num_left_out for configuration in configurations)
    left_out = f" {format_count(num_left_out, 'test image')} that not all have are left out of the tests."
    return (
        f"The images differ: {groups}. Tests use the test images that both have with the same label."
        f"{left_out if num_left_out else ''} Accuracies are on the test images of each."
    )


def _describe_correction(run: RunResults) -> str:
    parts = [
        f"{format_count(entry['count'], 'image')} {text}"
        for name, text in CORRECTIONS.items()
        if (entry := run.record["data"].get(name))
    ]
    return " and ".join(parts) or "none corrected"


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
