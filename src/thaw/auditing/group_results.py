"""Say what groups do to an accuracy: those that the data set has, or those that file names suggest."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np

from thaw.auditing.findings import CheckResult, Exhibit, Finding, build_finding, build_picture, limit_exhibits
from thaw.auditing.group_names import GroupSuggestion
from thaw.config.errors import format_count
from thaw.data.leaks import TRAINING_SPLITS, find_group_leaks
from thaw.data.samples import Samples

NOTHING = "nothing found"


def describe_known_groups(samples: Samples, random_accuracy: float, grouped_accuracy: float) -> CheckResult:
    """Describe the groups of the data set: those on both sides of its own splits, and how much a random split flatters.

    The accuracies are those of predictions with random folds and with folds that keep groups together.
    """
    leaks = pair_with_training_image(samples)
    num_groups = len(np.unique(samples.samples.groups))
    points = 100 * (random_accuracy - grouped_accuracy)
    effect = (
        f"a linear probe and neighbors are right in {random_accuracy:.3f} of cases with random folds and in "
        f"{grouped_accuracy:.3f} with groups kept together: {abs(points):.1f} points {'more' if points > 0 else 'less'}"
    )
    return CheckResult(
        "group_leaks",
        "Groups on both sides of a split",
        f"{format_count(len(leaks), 'test image')} of {num_groups} groups" if leaks else NOTHING,
        effect,
        tuple(
            build_finding(
                "group_leak", samples, test, other, note=f"group {samples.samples[test].group} is also in train or val"
            )
            for test, other in leaks
        ),
        limit_exhibits(
            [
                Exhibit(
                    (build_picture(samples, test), build_picture(samples, other)),
                    f"group {samples.samples[test].group}",
                )
                for test, other in leaks
            ]
        ),
        advice="The accuracy on these test images is that of a network that has seen their group. dataset.splits=null "
        "for folders, or another split column, lets thaw draw splits that keep groups together.",
        measurements={
            "groups": num_groups,
            "random_accuracy": random_accuracy,
            "grouped_accuracy": grouped_accuracy,
        },
    )


def pair_with_training_image(samples: Samples) -> list[tuple[int, int]]:
    """Return each test image whose group is also in train or val, with the first image of the group there."""
    first_positions: dict[str | None, int] = {}
    for position, sample in enumerate(samples.samples):
        if sample.split in TRAINING_SPLITS:
            first_positions.setdefault(sample.group, position)
    return [(test, first_positions[samples.samples[test].group]) for test in find_group_leaks(samples).tolist()]


def describe_suggested_groups(suggestion: GroupSuggestion | None, samples: Samples) -> CheckResult:
    """Describe the groups that the file names suggest, for a data set without groups."""
    title, key = "Groups in file names", "groups"
    if suggestion is None:
        certainty = "no part of the names is shared by images that resemble each other more than others of their class"
        return CheckResult(key, title, NOTHING, certainty)
    positions = {path: position for position, path in enumerate(samples.samples.paths)}
    exhibits = [
        Exhibit(
            tuple(build_picture(samples, positions[path]) for path in example.paths),
            f"group {example.name}: {format_count(example.num_images, 'image')}",
        )
        for example in suggestion.examples
    ]
    return CheckResult(
        key,
        title,
        format_count(suggestion.num_groups, "group"),
        suggestion.describe(),
        (
            Finding(
                "group",
                score=suggestion.random_accuracy - suggestion.grouped_accuracy,
                note=f"{suggestion.override}: {suggestion.describe()}",
            ),
        ),
        tuple(exhibits),
        advice=f"If these are patients, cameras, videos or photographers, keep them together: {suggestion.override}",
        measurements=asdict(suggestion),
    )
