"""Configurations: runs that differ only in seed, split and fold, with their numbers, tested against one reference."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from thaw.comparison.designs import Design, detect_design
from thaw.comparison.estimates import Estimate, estimate_accuracy
from thaw.comparison.pairing import pair_runs, score_runs
from thaw.comparison.records import Replicate, RunResults
from thaw.comparison.settings import TRAINING, Key, build_labels, extract_settings, format_value, get_value
from thaw.comparison.significance import PairedTest, adjust_paired_tests, test_paired_runs


@dataclass(frozen=True)
class Configuration:
    """Runs that are equal except for seed, split and fold.

    `values` are the values of the differing keys as text. `runs` are done, one per replicate, sorted. `paired_test` is
    None for the reference, and if nothing can be tested. `num_left_out` counts the test images that a test against the
    reference leaves out, because only one of them has these.
    """

    values: tuple[str, ...]
    label: str
    runs: tuple[RunResults, ...]
    paired_test: PairedTest | None = None
    is_reference: bool = False
    num_left_out: int = 0

    @property
    def short_label(self) -> str:
        """The label without the names of keys, for narrow places."""
        return " · ".join(value for value in self.values if value not in ("-", TRAINING)) or self.label

    @property
    def seeds(self) -> list[int]:
        """The different seeds of the runs, sorted."""
        return sorted({run.seed for run in self.runs})

    @property
    def replicates(self) -> list[Replicate]:
        """Seed, split_seed and fold of each run, sorted."""
        return [run.replicate for run in self.runs]

    @cached_property
    def design(self) -> Design:
        """How the runs share test images."""
        return detect_design(score_runs(self.runs))

    @cached_property
    def num_splits(self) -> int:
        """The number of different sets of test images."""
        return len({run.predictions.identity for run in self.runs})

    @cached_property
    def test_accuracy(self) -> Estimate:
        """The accuracy on the test images. Those of folds are pooled."""
        return estimate_accuracy(score_runs(self.runs), self.design)

    def get_scores(self, split: str, metric: str) -> list[float]:
        """Return one number per run; nan if there are no images of `split`, or if the metric was not computed."""
        return [run.get_score(split, metric) for run in self.runs]

    def compute_mean(self, split: str, metric: str) -> float:
        """Return the mean of a metric over the runs."""
        return float(np.mean(self.get_scores(split, metric)))

    def compute_median(self, timing: str) -> float:
        """Return the median of a time over the runs: it ignores the one run that computes features, or downloads data,
        for the others."""
        return float(np.median(self.get_scores("timing", timing)))

    @property
    def num_trainable_parameters(self) -> int:
        """The number of parameters that were trained."""
        return int(self.runs[0].record["parameters"]["trainable"])

    @cached_property
    def class_accuracies(self) -> dict[str, float]:
        """The fraction of each class's test images that are predicted correctly, over all runs together."""
        labels = np.concatenate([run.predictions.labels for run in self.runs])
        correct = np.concatenate([run.predictions.correct for run in self.runs])
        names, class_index, counts = np.unique(labels, return_inverse=True, return_counts=True)
        accuracies = np.bincount(class_index, weights=correct) / counts
        return dict(zip(names.tolist(), accuracies.tolist(), strict=True))


def group_into_configurations(
    runs: Sequence[RunResults], keys: Sequence[Key]
) -> tuple[list[Configuration], list[RunResults]]:
    """Group runs that are done and have equal values of `keys`.

    If several runs of a group have the same seed, split and fold, only the one that started last is used, because a
    repetition adds no information. Returns the configurations, sorted by test accuracy, and the runs that are left out.
    """
    groups: dict[tuple[str, ...], dict[Replicate, RunResults]] = defaultdict(dict)
    superseded_runs = []
    for run in runs:
        runs_by_replicate = groups[format_setting_values(run, keys)]
        superseded_runs += [runs_by_replicate[run.replicate]] if run.replicate in runs_by_replicate else []
        runs_by_replicate[run.replicate] = run
    labels = build_labels(keys, list(groups)) if keys else [str(get_value(runs[0].recipe, ("strategy",)))]
    configurations = [
        Configuration(values, label, tuple(sorted(group_runs.values(), key=_get_order)))
        for (values, group_runs), label in zip(groups.items(), labels, strict=True)
    ]
    return sorted(
        configurations,
        key=lambda configuration: (-configuration.test_accuracy.mean, configuration.compute_mean("test", "loss")),
    ), superseded_runs


def _get_order(run: RunResults) -> tuple[int, ...]:
    return tuple(-1 if number is None else number for number in run.replicate)


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
    others = [configuration for configuration in configurations if configuration is not reference]
    pairings = {other.values: pair_runs(other.runs, reference.runs) for other in others}
    paired_values = [values for values, pairing in pairings.items() if pairing.pairs]
    tests = [
        test_paired_runs(pairings[values].pairs, detect_design(pairings[values].pairs)) for values in paired_values
    ]
    adjusted_tests = dict(zip(paired_values, adjust_paired_tests(tests), strict=True))
    return [
        replace(
            configuration,
            paired_test=adjusted_tests.get(configuration.values),
            is_reference=configuration is reference,
            num_left_out=pairings[configuration.values].num_left_out if configuration.values in adjusted_tests else 0,
        )
        for configuration in configurations
    ], selection_split


def _has_validation_scores(configurations: Sequence[Configuration]) -> bool:
    return not any(np.isnan(configuration.compute_mean("val", "accuracy")) for configuration in configurations)
