"""Runs -> configurations: what is equal but for the seed, with its numbers, and tested against one reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from thaw.comparison.runs import Record
from thaw.comparison.settings import TRAINING, Key, labels_of, settings_of, shown, value_at
from thaw.comparison.significance import Paired, Spread, holm, paired, spread_of


@dataclass(frozen=True)
class Configuration:
    """`values` belong to the differing keys, as text. `runs` are done, one a seed, in the order of the seeds. `test` is
    None for the reference, and where nothing can be tested."""

    values: tuple[str, ...]
    label: str
    runs: tuple[Record, ...]
    test: Paired | None = None
    is_reference: bool = False

    @property
    def short(self) -> str:
        """The label without names of keys, for where there is little room."""
        return " · ".join(value for value in self.values if value not in ("-", TRAINING)) or self.label

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @cached_property
    def accuracy(self) -> Spread:
        """Of the test images."""
        low, high = self.runs[0].metrics["test"]["accuracy_ci95"]
        return spread_of(self.scores("test", "accuracy"), (low, high))

    def scores(self, split: str, metric: str) -> list[float]:
        """One a seed; nan where there are no images of `split`."""
        return [run.score(split, metric) for run in self.runs]

    def mean(self, split: str, metric: str) -> float:
        return float(np.mean(self.scores(split, metric)))

    def median(self, timing: str) -> float:
        """Over seeds, so that the one run that computes features, or fetches data, for the others does not count."""
        return float(np.median(self.scores("timing", timing)))

    @property
    def trainable(self) -> int:
        return int(self.runs[0].about["parameters"]["trainable"])

    @cached_property
    def class_accuracies(self) -> dict[str, float]:
        """Share of each class's test images that are right, mean over seeds."""
        found: dict[str, list[float]] = defaultdict(list)
        for run in self.runs:
            names, which, counts = np.unique(run.predictions.labels, return_inverse=True, return_counts=True)
            shares = np.bincount(which, weights=run.predictions.right) / counts
            for name, share in zip(names.tolist(), shares.tolist(), strict=True):
                found[name].append(share)
        return {name: float(np.mean(values)) for name, values in found.items()}


def configurations_of(runs: Sequence[Record], keys: Sequence[Key]) -> tuple[list[Configuration], list[Record]]:
    """Of `runs` that are done: those alike in `keys` are one configuration. Of runs with the same seed the one that was
    started last counts, as a repetition adds no seed; the others come second. Ordered by test accuracy."""
    groups: dict[tuple[str, ...], dict[int, Record]] = defaultdict(dict)
    superseded = []
    for run in runs:
        of_settings = groups[values_of(run, keys)]
        superseded += [of_settings[run.seed]] if run.seed in of_settings else []
        of_settings[run.seed] = run
    labels = labels_of(keys, list(groups))
    found = [
        Configuration(values, label, tuple(by_seed[seed] for seed in sorted(by_seed)))
        for (values, by_seed), label in zip(groups.items(), labels, strict=True)
    ]
    return sorted(found, key=lambda one: (-one.accuracy.mean, one.mean("test", "loss"))), superseded


def values_of(run: Record, keys: Sequence[Key]) -> tuple[str, ...]:
    settings = settings_of(run)
    return tuple(shown(value_at(settings, key)) for key in keys)


def tested(configurations: Sequence[Configuration]) -> tuple[list[Configuration], str]:
    """All tested against the reference, the most accurate one, of equal ones that with the lower loss; and the split
    that it was chosen on: `val`, as test images choose nothing, but `test` where a run has no validation images."""
    splits = ["val", "test"]
    split = next(name for name in splits if name == "test" or _is_judged_on(name, configurations))
    best = max(configurations, key=lambda one: (one.mean(split, "accuracy"), -one.mean(split, "loss")))
    tests = {one.values: _against(one, best) for one in configurations if one is not best}
    made = {values: test for values, test in tests.items() if test is not None}
    adjusted = zip(made.items(), holm([test.p for test in made.values()]), strict=True)
    corrected = {values: replace(test, adjusted=p) for (values, test), p in adjusted}
    return [replace(one, test=corrected.get(one.values), is_reference=one is best) for one in configurations], split


def _is_judged_on(split: str, configurations: Sequence[Configuration]) -> bool:
    return not any(np.isnan(one.mean(split, "accuracy")) for one in configurations)


def _against(one: Configuration, other: Configuration) -> Paired | None:
    """None without a shared seed, or where the test images of one are others."""
    pairs: list[tuple[Any, Any]] = [
        (ours, theirs) for ours in one.runs for theirs in other.runs if ours.seed == theirs.seed
    ]
    if not pairs or any(ours.predictions.identity != theirs.predictions.identity for ours, theirs in pairs):
        return None
    accuracies = [[run.score("test", "accuracy") for run in side] for side in zip(*pairs, strict=True)]
    images = [(ours.predictions.paths, ours.predictions.right, theirs.predictions.right) for ours, theirs in pairs]
    return paired(accuracies[0], accuracies[1], images)
