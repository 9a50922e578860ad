"""Configurations: runs that differ only in the seed, with their numbers, tested against one reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from thaw.comparison.records import RunResults
from thaw.comparison.settings import TRAINING, Key, build_labels, extract_settings, format_value, get_value
from thaw.comparison.significance import Estimate, PairedTest, compute_paired_test, estimate_mean, holm


@dataclass(frozen=True)
class Configuration:
    """Runs that are equal except for the seed.

    `values` are the values of the differing keys as text. `runs` are done, one per seed, sorted by seed. `paired_test`
    is None for the reference, and if nothing can be tested.
    """

    values: tuple[str, ...]
    label: str
    runs: tuple[RunResults, ...]
    paired_test: PairedTest | None = None
    is_reference: bool = False

    @property
    def short_label(self) -> str:
        """The label without the names of keys, for narrow places."""
        return " · ".join(value for value in self.values if value not in ("-", TRAINING)) or self.label

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs, sorted."""
        return [run.seed for run in self.runs]

    @cached_property
    def test_accuracy(self) -> Estimate:
        """The accuracy on the test images, over seeds."""
        low, high = self.runs[0].metrics["test"]["accuracy_ci95"]
        return estimate_mean(self.get_scores("test", "accuracy"), (low, high))

    def get_scores(self, split: str, metric: str) -> list[float]:
        """Return one number per seed; nan if there are no images of `split`."""
        return [run.get_score(split, metric) for run in self.runs]

    def compute_mean(self, split: str, metric: str) -> float:
        """Return the mean of a metric over seeds."""
        return float(np.mean(self.get_scores(split, metric)))

    def compute_median(self, timing: str) -> float:
        """Return the median of a time over seeds: it ignores the one run that computes features, or downloads data, for
        the others."""
        return float(np.median(self.get_scores("timing", timing)))

    @property
    def num_trainable_parameters(self) -> int:
        """The number of parameters that were trained."""
        return int(self.runs[0].record["parameters"]["trainable"])

    @cached_property
    def class_accuracies(self) -> dict[str, float]:
        """The fraction of each class's test images that are predicted correctly, mean over seeds."""
        seed_accuracies: dict[str, list[float]] = defaultdict(list)
        for run in self.runs:
            names, class_index, counts = np.unique(run.predictions.labels, return_inverse=True, return_counts=True)
            accuracies = np.bincount(class_index, weights=run.predictions.correct) / counts
            for name, accuracy in zip(names.tolist(), accuracies.tolist(), strict=True):
                seed_accuracies[name].append(accuracy)
        return {name: float(np.mean(values)) for name, values in seed_accuracies.items()}


def group_into_configurations(
    runs: Sequence[RunResults], keys: Sequence[Key]
) -> tuple[list[Configuration], list[RunResults]]:
    """Group runs that are done and have equal values of `keys`.

    If several runs of a group have the same seed, only the one that started last is used, because a repetition adds no
    seed. Returns the configurations, sorted by test accuracy, and the runs that are left out.
    """
    groups: dict[tuple[str, ...], dict[int, RunResults]] = defaultdict(dict)
    superseded_runs = []
    for run in runs:
        runs_by_seed = groups[format_setting_values(run, keys)]
        superseded_runs += [runs_by_seed[run.seed]] if run.seed in runs_by_seed else []
        runs_by_seed[run.seed] = run
    labels = build_labels(keys, list(groups)) if keys else [str(get_value(runs[0].recipe, ("strategy",)))]
    configurations = [
        Configuration(values, label, tuple(seed_runs[seed] for seed in sorted(seed_runs)))
        for (values, seed_runs), label in zip(groups.items(), labels, strict=True)
    ]
    return sorted(
        configurations,
        key=lambda configuration: (-configuration.test_accuracy.mean, configuration.compute_mean("test", "loss")),
    ), superseded_runs


def format_setting_values(run: RunResults, keys: Sequence[Key]) -> tuple[str, ...]:
    """Return the values of `keys` in the recipe of `run` as text."""
    settings = extract_settings(run)
    return tuple(format_value(get_value(settings, key)) for key in keys)


def test_against_reference(configurations: Sequence[Configuration]) -> tuple[list[Configuration], str]:
    """Test all configurations against the reference: the most accurate one; among equals the one with the lower loss.

    Returns them in their order, and the split that the reference was chosen on: `val`, because test images choose
    nothing, or `test` if a run has no validation images.
    """
    selection_split = "val" if _has_validation_scores(configurations) else "test"
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
    adjusted_tests = _adjust_p_values({values: test for values, test in tests.items() if test is not None})
    return [
        replace(
            configuration, paired_test=adjusted_tests.get(configuration.values), is_reference=configuration is reference
        )
        for configuration in configurations
    ], selection_split


def _has_validation_scores(configurations: Sequence[Configuration]) -> bool:
    return not any(np.isnan(configuration.compute_mean("val", "accuracy")) for configuration in configurations)


def _adjust_p_values(tests: Mapping[tuple[str, ...], PairedTest]) -> dict[tuple[str, ...], PairedTest]:
    p_values = holm([test.p_value for test in tests.values()])
    return {
        values: replace(test, adjusted_p_value=p_value)
        for (values, test), p_value in zip(tests.items(), p_values, strict=True)
    }


def _test_against(configuration: Configuration, reference: Configuration) -> PairedTest | None:
    """Return None if they share no seed or have different test images."""
    run_pairs = [
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
