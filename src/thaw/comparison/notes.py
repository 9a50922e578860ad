"""How the numbers of a comparison came about: its caption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from thaw.comparison.configurations import Configuration
from thaw.comparison.significance import Paired

INTERVALS = {
    "seeds": "Student's t over seeds: what other seeds would give on these test images",
    "images": "Wilson's over test images, marked *: what this network would give on other images of the kind",
}
TESTS = {
    "seeds": "paired t-test over the shared seeds",
    "images": "exact McNemar (sign) test over the test images, marked *, where fewer than 3 seeds are shared or all "
    "differ by the same",
}


def notes(configurations: Sequence[Configuration], judged_on: str) -> Iterator[str]:
    """Sentences; `judged_on` is the split that the reference was chosen on."""
    yield "Ordered by test accuracy, for reading only."
    if judged_on == "val":
        yield "The reference is the best configuration by mean validation accuracy: test images choose nothing."
    if any(len(one.runs) > 1 for one in configurations):
        yield "Mean ± standard deviation over seeds (n - 1)."
    yield f"95 % intervals: {_ways(INTERVALS, (one.accuracy.over for one in configurations))}."
    yield from _of_tests([one.test for one in configurations if one.test])
    _, counts = np.unique(configurations[0].runs[0].predictions.labels, return_counts=True)
    yield f"The smallest class has {counts.min()} test images: each is {100 / counts.min():.2g} points of its accuracy."
    yield "Seconds: of whole runs, median over seeds."
    yield from _of_features([value for one in configurations for value in one.scores("timing", "cache_s")])


def _ways(ways: Mapping[str, str], taken: Iterable[str]) -> str:
    found = set(taken)
    return "; ".join(text for over, text in ways.items() if over in found)


def _of_tests(tests: Sequence[Paired]) -> Iterator[str]:
    if tests:
        several = f", corrected for {len(tests)} comparisons by Holm's method" if len(tests) > 1 else ""
        yield f"p: against the reference, two-sided{several}: {_ways(TESTS, (test.over for test in tests))}."


def _of_features(seconds: Sequence[float]) -> Iterator[str]:
    if any(seconds):
        took = sum(value > 0 for value in seconds)
        yield (
            f"Features of frozen stages took {sum(seconds):.1f} s in all, spent by {took} of {len(seconds)} runs; runs "
            "that found them in the cache would take longer alone."
        )
