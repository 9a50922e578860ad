"""What a split of another kind measures: random splits against splits that keep groups together."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np
from scipy import stats

from thaw.comparison.configurations import Configuration
from thaw.comparison.pairing import score_runs
from thaw.metrics.bootstrap import sum_over_units

GROUP_KEYS = ("dataset.group_pattern", "dataset.group_column")
NO_VALUES = ("none", "-")  # as a comparison writes a key that is null or absent


def describe_split_effects(configurations: Sequence[Configuration], keys: Sequence[str]) -> Iterator[str]:
    """Yield a sentence for each pair of configurations that differ only in whether groups are kept together.

    The interval of the difference is that of two independent samples of test images, or of groups where there are some:
    the test images are others.
    """
    positions = [index for index, key in enumerate(keys) if key in GROUP_KEYS]
    if not positions:
        return
    pairs: dict[tuple[str, ...], dict[bool, Configuration]] = defaultdict(dict)
    for configuration in configurations:
        other_values = tuple(value for index, value in enumerate(configuration.values) if index not in positions)
        has_groups = any(configuration.values[index] not in NO_VALUES for index in positions)
        pairs[other_values][has_groups] = configuration
    for other_values, pair in pairs.items():
        if len(pair) == 2:
            yield _describe_pair(" · ".join(other_values), pair[False], pair[True])


def _describe_pair(name: str, random: Configuration, grouped: Configuration) -> str:
    difference = random.test_accuracy.mean - grouped.test_accuracy.mean
    std_error = math.hypot(_compute_std_error(random), _compute_std_error(grouped))
    margin = float(stats.norm.ppf(0.975)) * std_error
    interval = f"95 % interval {difference - margin:+.3f} to {difference + margin:+.3f}"
    num_groups = len(np.unique(np.concatenate([run.predictions.groups for run in grouped.runs])))
    accuracies = (
        f"{random.test_accuracy.mean:.3f} with a random split, {grouped.test_accuracy.mean:.3f} where no group is in "
        f"two splits ({num_groups} groups are tested)"
    )
    prefix = f"{name}: " if name else ""
    if difference - margin > 0:
        return (
            f"{prefix}the random split flatters by {difference:.3f} ({interval}): {accuracies}. Images of one group in "
            "train and test make a test easier than images of new groups are."
        )
    return f"{prefix}a random split changes the accuracy by {difference:+.3f} ({interval}): {accuracies}."


def _compute_std_error(configuration: Configuration) -> float:
    runs = score_runs(configuration.runs)
    images, groups, correct = (
        np.concatenate([getattr(run, name) for run in runs]) for name in ("images", "groups", "correct")
    )
    std_error = sum_over_units(images, groups, correct).std_error
    return 0.0 if math.isnan(std_error) else std_error
