"""How the numbers of a comparison came about: its caption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from thaw.comparison.configurations import Configuration
from thaw.comparison.significance import PairedTest

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
