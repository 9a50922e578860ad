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

    Where both test the same images, as folds do, they are compared image by image. Otherwise the interval of the
    difference is that of two independent samples of test images, or of groups where there are some.
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
    difference, margin, method = _compare_on_same_images(random, grouped) or _compare_independently(random, grouped)
    interval = f"95 % interval {difference - margin:+.3f} to {difference + margin:+.3f}, {method}"
    num_groups = len(np.unique(np.concatenate([run.predictions.groups for run in grouped.runs])))
    accuracies = (
        f"{random.test_accuracy.mean:.3f} with a random split, {grouped.test_accuracy.mean:.3f} where no group is in "
        f"two splits ({num_groups} groups are tested)"
    )
    prefix = f"{name}: " if name else ""
    if difference - margin > 0:
        return (
            f"{prefix}The random split flatters by {difference:.3f} ({interval}): {accuracies}. Images of one group in "
            "train and test make a test easier than images of new groups are."
        )
    return f"{prefix}A random split changes the accuracy by {difference:+.3f} ({interval}): {accuracies}."


def _compare_on_same_images(random: Configuration, grouped: Configuration) -> tuple[float, float, str] | None:
    """Return the difference, the half width of its interval and how it was computed, if both test the same images, as
    folds do: image by image, over groups. Otherwise None."""
    images, accuracies, groups = _average_by_image(grouped)
    random_images, random_accuracies, _ = _average_by_image(random)
    if not np.array_equal(images, random_images):
        return None
    units = sum_over_units(images, groups, random_accuracies - accuracies)
    num_units = len(units.sums)
    if num_units < 2:
        return None
    return units.mean, float(stats.t.ppf(0.975, num_units - 1)) * units.std_error, "both test the same images"


def _average_by_image(configuration: Configuration) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the different test images, sorted, how often each is predicted correctly, and the group of each."""
    images, groups, correct = _pool_runs(configuration)
    names, first_index, image_index, counts = np.unique(
        images, return_index=True, return_inverse=True, return_counts=True
    )
    return names, np.bincount(image_index, weights=correct) / counts, groups[first_index]


def _pool_runs(configuration: Configuration) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    runs = score_runs(configuration.runs)
    images, groups, correct = (
        np.concatenate([getattr(run, name) for run in runs]) for name in ("images", "groups", "correct")
    )
    return images, groups, correct


def _compare_independently(random: Configuration, grouped: Configuration) -> tuple[float, float, str]:
    difference = random.test_accuracy.mean - grouped.test_accuracy.mean
    std_error = math.hypot(_compute_std_error(random), _compute_std_error(grouped))
    return difference, float(stats.norm.ppf(0.975)) * std_error, "of test images that are drawn independently"


def _compute_std_error(configuration: Configuration) -> float:
    std_error = sum_over_units(*_pool_runs(configuration)).std_error
    return 0.0 if math.isnan(std_error) else std_error
