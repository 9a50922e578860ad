"""Sentences on how the numbers of a comparison were computed."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from thaw.comparison.configurations import Configuration
from thaw.comparison.estimates import INTERVAL_METHODS
from thaw.comparison.significance import EQUIVALENCE_MARGIN, METHODS, PairedTest


def build_notes(configurations: Sequence[Configuration], selection_split: str) -> Iterator[str]:
    """Yield sentences on how the numbers were computed. `selection_split` is the split that chose the reference."""
    yield "The rows are ordered by test accuracy, for reading only."
    if selection_split == "val":
        yield "The reference is the best configuration by mean validation accuracy: test images choose nothing."
    if any(len(configuration.runs) > 1 for configuration in configurations):
        yield "Accuracies are mean ± standard deviation over runs (n - 1)."
    yield from _describe_designs(configurations)
    interval_units = (configuration.test_accuracy.sampling_unit for configuration in configurations)
    yield f"95 % intervals: {_describe_methods(INTERVAL_METHODS, interval_units)}."
    yield from _build_test_notes([row.paired_test for row in configurations if row.paired_test])
    labels_by_image = {
        path: label
        for run in configurations[0].runs
        for path, label in zip(run.predictions.paths.tolist(), run.predictions.labels.tolist(), strict=True)
    }
    _, counts = np.unique(list(labels_by_image.values()), return_counts=True)
    yield (
        f"The smallest class has {counts.min()} test images: each is {100 / counts.min():.2g} percentage points of its "
        "accuracy."
    )
    yield "Seconds are those of whole runs, the median over runs."
    yield from _build_feature_notes(
        [value for configuration in configurations for value in configuration.get_scores("timing", "cache_s")]
    )


def _describe_designs(configurations: Sequence[Configuration]) -> Iterator[str]:
    """Say how the runs share test images."""
    designs = {configuration.design for configuration in configurations}
    if "folds" in designs:
        yield "Each image is tested once, by the run whose fold it is in; accuracies and classes are over all of them."
    if "resamples" in designs:
        yield (
            "Test images differ between the runs of a configuration, because dataset.split_seed does (or, in runs of "
            "version 0.2 and before, seed): the spread is that of other splits, not of other seeds alone."
        )
        yield from _describe_spreads(configurations)


def _describe_spreads(configurations: Sequence[Configuration]) -> Iterator[str]:
    """Set the spread over seeds of one split beside that over splits, where a configuration has both."""
    for configuration in configurations:
        scores_by_split: dict[str, list[float]] = defaultdict(list)
        for run in configuration.runs:
            scores_by_split[run.predictions.identity].append(run.get_score("test", "accuracy"))
        variances = [np.var(scores, ddof=1) for scores in scores_by_split.values() if len(scores) > 1]
        if configuration.design == "resamples" and variances:
            std_over_splits = np.std([np.mean(scores) for scores in scores_by_split.values()], ddof=1)
            yield (
                f"Accuracies of {configuration.label} spread by ±{np.sqrt(np.mean(variances)):.3f} over seeds of one "
                f"split and by ±{std_over_splits:.3f} over splits: seeds on a fixed split show only the former."
            )


def _describe_methods(methods: Mapping[Any, str], keys: Iterable[str]) -> str:
    used_keys = set(keys)
    return "; ".join(text for key, text in methods.items() if key in used_keys)


def _build_test_notes(tests: Sequence[PairedTest]) -> Iterator[str]:
    if tests:
        correction = f", corrected for {len(tests)} comparisons by Holm's method" if len(tests) > 1 else ""
        yield f"p values, against the reference{correction}: {_describe_methods(METHODS, (t.method for t in tests))}."
        yield (
            f"Equivalent means that two one-sided tests show a difference below {100 * EQUIVALENCE_MARGIN:g} "
            "percentage point; docs/statistics.md says how often each procedure is wrong."
        )


def _build_feature_notes(seconds: Sequence[float]) -> Iterator[str]:
    if any(seconds):
        num_computing_runs = sum(value > 0 for value in seconds)
        yield (
            f"Computing the features of frozen stages took {sum(seconds):.1f} s in total, in {num_computing_runs} of "
            f"{len(seconds)} runs. Runs that read them from the cache would take longer alone."
        )
