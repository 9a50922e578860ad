"""What is wrong with a data set, as far as it can be seen: pure functions over its samples and their decoded sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thaw.config.errors import format_names
from thaw.data.readers import escape_paths
from thaw.data.samples import Samples

MIN_TRAIN_IMAGES = 2  # of one image, nothing tells what its class has in common
MAX_SIDE = 10_000  # pixels
MAX_ASPECT_RATIO = 8  # longer side to shorter
MAX_NAMES_ON_SCREEN, MAX_NAMES_PER_GROUP, MAX_NAMES_IN_RECORDS = 3, 4, 100
GROUP_SEPARATOR = " = "


@dataclass(frozen=True)
class DatasetProblem:
    """One kind of thing that is wrong. `names` are all the images, groups of images or classes concerned."""

    kind: str
    description: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        first_names = format_names(map(_abbreviate, self.names[:MAX_NAMES_ON_SCREEN]))
        num_more = len(self.names) - MAX_NAMES_ON_SCREEN
        return (
            f"{self.description}: {len(self.names)} ({first_names}{f', ... ({num_more} more)' if num_more > 0 else ''})"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `run.json`; of very many names the first, with the count of all."""
        names = list(self.names[:MAX_NAMES_IN_RECORDS])
        return {"kind": self.kind, "what": self.description, "count": len(self.names), "names": names}


def find_problems(samples: Samples, sizes: np.ndarray, hashes: np.ndarray | None = None) -> list[DatasetProblem]:
    """Everything found. `sizes` is int64 [samples, 2], height and width in pixels as decoded; `looks`, where near
    duplicates are wanted, holds a `lookalike.difference_hash` a sample, uint64 [samples, 2]."""
    problems = [
        DatasetProblem(
            "few_images", f"classes with fewer than {MIN_TRAIN_IMAGES} train images", find_small_classes(samples)
        ),
        DatasetProblem("one_split", "classes that are in one split only", find_single_split_classes(samples)),
        *find_duplicates(samples),
        *find_odd_sizes(samples, sizes),
    ]
    if hashes is not None:
        from thaw.data.near_duplicates import find_near_duplicates

        near_duplicate_names = tuple(
            " ~ ".join(map(escape_path, pair)) for pair in find_near_duplicates(samples, hashes)
        )
        problems.append(
            DatasetProblem(
                "near_duplicates", "pairs of images that look alike, in different splits", near_duplicate_names
            )
        )
    return [problem for problem in problems if problem.names]


def build_broken_problems(reasons: Mapping[str, str]) -> list[DatasetProblem]:
    """`reasons`: printable path -> why it cannot be decoded."""
    names = tuple(f"{path} ({reason})" for path, reason in reasons.items())
    return [DatasetProblem("broken", "images that cannot be decoded", names)] if names else []


def find_small_classes(samples: Samples) -> tuple[str, ...]:
    """Classes with fewer than FEWEST_TRAIN_IMAGES train images."""
    counts = Counter(sample.label for sample in samples.samples if sample.split == "train")
    return tuple(name for label, name in enumerate(samples.classes) if counts[label] < MIN_TRAIN_IMAGES)


def find_single_split_classes(samples: Samples) -> tuple[str, ...]:
    """Classes all of whose images are in one split, of a data set that has several."""
    splits: dict[int, set[str]] = {}
    for sample in samples.samples:
        splits.setdefault(sample.label, set()).add(sample.split)
    has_several_splits = len(set().union(*splits.values())) > 1
    return tuple(samples.classes[label] for label in sorted(splits) if has_several_splits and len(splits[label]) == 1)


def find_duplicates(samples: Samples) -> Iterator[DatasetProblem]:
    """Files of equal bytes: those in several splits, whose test images were trained on; those within one split; and
    those with several labels, of which all but one are wrong."""
    groups = list(_group_equal_files(samples))
    groups_across_splits = [
        group for group in groups if len({samples.samples[position].split for position in group}) > 1
    ]
    groups_within_split = [group for group in groups if group not in groups_across_splits]
    contradictory_groups = [
        group for group in groups if len({samples.samples[position].label for position in group}) > 1
    ]
    yield DatasetProblem(
        "duplicates_across_splits",
        "images with equal files in different splits",
        _format_groups(samples, groups_across_splits),
    )
    yield DatasetProblem(
        "duplicates_within_split", "images with equal files in one split", _format_groups(samples, groups_within_split)
    )
    yield DatasetProblem(
        "contradictory_labels",
        "images with equal files in different classes",
        _format_groups(samples, contradictory_groups),
    )


def _group_equal_files(samples: Samples) -> Iterable[Sequence[int]]:
    groups: dict[str, list[int]] = {}
    for position, file_hash in enumerate(samples.hashes):
        groups.setdefault(file_hash, []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def _format_groups(samples: Samples, groups: Iterable[Sequence[int]]) -> tuple[str, ...]:
    return tuple(
        GROUP_SEPARATOR.join(_format_path(samples, position) for position in _order_group(samples, group))
        for group in groups
    )


def _order_group(samples: Samples, group: Sequence[int]) -> list[int]:
    """One of each split and class, then the others: a long group's first names show what is wrong with it."""
    first_positions = {
        (samples.samples[position].split, samples.samples[position].label): position for position in reversed(group)
    }
    return [
        *sorted(first_positions.values()),
        *(position for position in group if position not in first_positions.values()),
    ]


def _abbreviate(name: str) -> str:
    parts = name.split(GROUP_SEPARATOR)
    num_more = len(parts) - MAX_NAMES_PER_GROUP
    return name if num_more <= 0 else GROUP_SEPARATOR.join([*parts[:MAX_NAMES_PER_GROUP], f"{num_more} more"])


def _format_path(samples: Samples, position: int) -> str:
    """A path says its split only where the data set has a folder for it."""
    sample = samples.samples[position]
    path = escape_path(sample.path)
    return path if path.startswith(f"{sample.split}/") else f"{path} [{sample.split}]"


def find_odd_sizes(samples: Samples, sizes: np.ndarray) -> Iterator[DatasetProblem]:
    """Images of sizes that are hardly meant: a side of 1 pixel, over LONGEST_SIDE, more than MOST_ELONGATED to one."""
    short_sides, long_sides = sizes.min(axis=1, initial=MAX_SIDE), sizes.max(axis=1, initial=1)
    elongated_description = f"images longer than {MAX_ASPECT_RATIO} to 1, of which only the middle is used"
    for kind, description, is_odd in (
        ("one_pixel", "images with a side of 1 pixel", short_sides == 1),
        ("huge", f"images with a side of more than {MAX_SIDE:,} pixels", long_sides > MAX_SIDE),
        ("elongated", elongated_description, long_sides > MAX_ASPECT_RATIO * short_sides),
    ):
        positions = np.flatnonzero(is_odd)
        names = (
            f"{escape_path(samples.samples[position].path)} ({_format_size(sizes[position])})" for position in positions
        )
        yield DatasetProblem(kind, description, tuple(names))


def escape_path(path: str) -> str:
    """A file's name need not be UTF-8."""
    return escape_paths([path])[0]


def _format_size(size: np.ndarray) -> str:
    height, width = size
    return f"{width} x {height}"
