"""Runs -> configurations: what is equal but for the seed, with its numbers, and tested against one reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from thaw.comparison.records import Record
from thaw.comparison.settings import TRAINING, Key, build_labels, extract_settings, format_value, get_value
from thaw.comparison.significance import Estimate, PairedTest, compute_paired_test, estimate_mean, holm


@dataclass(frozen=True)
class Configuration:
    """`values` belong to the differing keys, as text. `runs` are done, one a seed, in the order of the seeds. `test` is
    None for the reference, and where nothing can be tested."""

    values: tuple[str, ...]
    label: str
    runs: tuple[Record, ...]
    paired_test: PairedTest | None = None
    is_reference: bool = False

    @property
    def short_label(self) -> str:
        """The label without names of keys, for where there is little room."""
        return " · ".join(value for value in self.values if value not in ("-", TRAINING)) or self.label

    @property
    def seeds(self) -> list[int]:
        return [run.seed for run in self.runs]

    @cached_property
    def test_accuracy(self) -> Estimate:
        """Of the test images."""
        low, high = self.runs[0].metrics["test"]["accuracy_ci95"]
        return estimate_mean(self.get_scores("test", "accuracy"), (low, high))

    def get_scores(self, split: str, metric: str) -> list[float]:
        """One a seed; nan where there are no images of `split`."""
        return [run.get_score(split, metric) for run in self.runs]

    def compute_mean(self, split: str, metric: str) -> float:
        return float(np.mean(self.get_scores(split, metric)))

    def compute_median(self, timing: str) -> float:
        """Over seeds, so that the one run that computes features, or fetches data, for the others does not count."""
        return float(np.median(self.get_scores("timing", timing)))

    @property
    def num_trainable_parameters(self) -> int:
        return int(self.runs[0].metadata["parameters"]["trainable"])

    @cached_property
    def class_accuracies(self) -> dict[str, float]:
        """Share of each class's test images that are right, mean over seeds."""
        seed_accuracies: dict[str, list[float]] = defaultdict(list)
        for run in self.runs:
            names, class_index, counts = np.unique(run.predictions.labels, return_inverse=True, return_counts=True)
            accuracies = np.bincount(class_index, weights=run.predictions.correct) / counts
            for name, accuracy in zip(names.tolist(), accuracies.tolist(), strict=True):
                seed_accuracies[name].append(accuracy)
        return {name: float(np.mean(values)) for name, values in seed_accuracies.items()}


def group_into_configurations(runs: Sequence[Record], keys: Sequence[Key]) -> tuple[list[Configuration], list[Record]]:
    """Of `runs` that are done: those alike in `keys` are one configuration. Of runs with the same seed the one that was
    started last counts, as a repetition adds no seed; the others come second. Ordered by test accuracy."""
    groups: dict[tuple[str, ...], dict[int, Record]] = defaultdict(dict)
    superseded_runs = []
    for run in runs:
        runs_by_seed = groups[format_setting_values(run, keys)]
        superseded_runs += [runs_by_seed[run.seed]] if run.seed in runs_by_seed else []
        runs_by_seed[run.seed] = run
    labels = build_labels(keys, list(groups))
    configurations = [
        Configuration(values, label, tuple(seed_runs[seed] for seed in sorted(seed_runs)))
        for (values, seed_runs), label in zip(groups.items(), labels, strict=True)
    ]
    return sorted(
        configurations,
        key=lambda configuration: (-configuration.test_accuracy.mean, configuration.compute_mean("test", "loss")),
    ), superseded_runs


def format_setting_values(run: Record, keys: Sequence[Key]) -> tuple[str, ...]:
    settings = extract_settings(run)
    return tuple(format_value(get_value(settings, key)) for key in keys)


def test_against_reference(configurations: Sequence[Configuration]) -> tuple[list[Configuration], str]:
    """All tested against the reference, the most accurate one, of equal ones that with the lower loss; and the split
    that it was chosen on: `val`, as test images choose nothing, but `test` where a run has no validation images."""
    splits = ["val", "test"]
    selection_split = next(name for name in splits if name == "test" or _has_scores(name, configurations))
    reference = max(
        configurations,
        key=lambda configuration: (
            configuration.compute_mean(selection_split, "accuracy"),
            -configuration.compute_mean(selection_split, "loss"),
        ),
    )
    tests = {
        configuration.values: _test_against(configuration, reference)
        for configuration in configurations
        if configuration is not reference
    }
    available_tests = {values: test for values, test in tests.items() if test is not None}
    adjusted_items = zip(
        available_tests.items(), holm([test.p_value for test in available_tests.values()]), strict=True
    )
    adjusted_tests = {values: replace(test, adjusted_p_value=p_value) for (values, test), p_value in adjusted_items}
    return [
        replace(
            configuration, paired_test=adjusted_tests.get(configuration.values), is_reference=configuration is reference
        )
        for configuration in configurations
    ], selection_split


def _has_scores(split: str, configurations: Sequence[Configuration]) -> bool:
    return not any(np.isnan(configuration.compute_mean(split, "accuracy")) for configuration in configurations)


def _test_against(configuration: Configuration, reference: Configuration) -> PairedTest | None:
    """None without a shared seed, or where the test images of one are others."""
    run_pairs: list[tuple[Any, Any]] = [
        (compared_run, reference_run)
        for compared_run in configuration.runs
        for reference_run in reference.runs
        if compared_run.seed == reference_run.seed
    ]
    if not run_pairs or any(
        compared_run.predictions.identity != reference_run.predictions.identity
        for compared_run, reference_run in run_pairs
    ):
        return None
    accuracies = [[run.get_score("test", "accuracy") for run in runs] for runs in zip(*run_pairs, strict=True)]
    paired_predictions = [
        (compared_run.predictions.paths, compared_run.predictions.correct, reference_run.predictions.correct)
        for compared_run, reference_run in run_pairs
    ]
    return compute_paired_test(accuracies[0], accuracies[1], paired_predictions)
