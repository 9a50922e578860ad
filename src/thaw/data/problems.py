"""Find problems of a data set: duplicates, copies across splits, small or unequal classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thaw.config.errors import format_names
from thaw.data.image import MAX_ASPECT_RATIO, NEARLY_BLACK
from thaw.data.leaks import find_group_leaks
from thaw.data.near_copies import CopyPair
from thaw.data.readers import escape_path
from thaw.data.sample_table import SPLIT_NAMES
from thaw.data.samples import Samples

MIN_TRAIN_IMAGES = 2  # one image does not show what its class has in common
MAX_SIDE = 10_000  # pixels
MAX_NAMES_ON_SCREEN, MAX_NAMES_PER_GROUP, MAX_NAMES_IN_RECORDS = 3, 4, 100
GROUP_SEPARATOR = " = "


@dataclass(frozen=True)
class DatasetProblem:
    """One kind of problem. `names` are all images, groups of images or classes that have it."""

    kind: str
    description: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        first_names = format_names(map(_abbreviate, self.names[:MAX_NAMES_ON_SCREEN]))
        num_more = len(self.names) - MAX_NAMES_ON_SCREEN
        suffix = f", ... ({num_more} more)" if num_more > 0 else ""
        return f"{self.description}: {len(self.names)} ({first_names}{suffix})"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for `run.json`: at most the first MAX_NAMES_IN_RECORDS names, and the count of all."""
        names = list(self.names[:MAX_NAMES_IN_RECORDS])
        return {"kind": self.kind, "what": self.description, "count": len(self.names), "names": names}


def find_problems(
    samples: Samples, sizes: np.ndarray, nearly_black: np.ndarray, copies: Sequence[CopyPair] | None = None
) -> list[DatasetProblem]:
    """Find all problems of `samples`.

    `sizes` is int64 [samples, 2], height and width of the decoded images; `nearly_black` is bool [samples], from
    `is_nearly_black`. `copies`, from `find_copies`, are given if near duplicates are wanted.
    """
    black_description = (
        f"images that are nearly black: no value above {NEARLY_BLACK} of 255 (12 bits in a 16-bit file?)"
    )
    few_images = f"classes with fewer than {MIN_TRAIN_IMAGES} train images"
    problems = [
        DatasetProblem("few_images", few_images, find_small_classes(samples)),
        DatasetProblem("one_split", "classes that are in one split only", find_single_split_classes(samples)),
        DatasetProblem("group_leaks", "test images whose group is also in train or val", name_group_leaks(samples)),
        *find_duplicates(samples),
        *find_odd_sizes(samples, sizes),
        DatasetProblem("nearly_black", black_description, _list_paths(samples, nearly_black)),
    ]
    if copies is not None:
        description = "pairs of images that are copies in other files, in different splits"
        problems.append(DatasetProblem("near_duplicates", description, tuple(_name_near_duplicates(samples, copies))))
    return [problem for problem in problems if problem.names]


def _name_near_duplicates(samples: Samples, copies: Iterable[CopyPair]) -> Iterator[str]:
    """Name the copies in different splits whose files differ; `find_duplicates` names equal files."""
    for pair in copies:
        first, second = (samples.samples[position] for position in (pair.first, pair.second))
        if first.split != second.split and samples.hashes[pair.first] != samples.hashes[pair.second]:
            yield f"{escape_path(first.path)} ~ {escape_path(second.path)} ({pair.difference})"


def build_broken_problems(reasons: Mapping[str, str]) -> list[DatasetProblem]:
    """Build the problem of images that cannot be decoded; `reasons` maps printable paths to reasons."""
    names = tuple(f"{path} ({reason})" for path, reason in reasons.items())
    return [DatasetProblem("broken", "images that cannot be decoded", names)] if names else []


def build_changed_problems(paths: Iterable[str]) -> list[DatasetProblem]:
    """Build the problem of files that have other bytes than the index remembers, with the size and time of before."""
    names, description = tuple(map(escape_path, paths)), "files that were changed without a new time"
    return [DatasetProblem("changed_files", description, names)] if names else []


def find_small_classes(samples: Samples) -> tuple[str, ...]:
    """Return the classes with fewer than MIN_TRAIN_IMAGES train images."""
    counts = np.bincount(samples.get_labels()[samples.get_positions("train")], minlength=len(samples.classes))
    return tuple(name for name, count in zip(samples.classes, counts, strict=True) if count < MIN_TRAIN_IMAGES)


def find_single_split_classes(samples: Samples) -> tuple[str, ...]:
    """Return the classes whose images are all in one split, if the data set has several splits."""
    labels, splits = samples.get_labels(), samples.samples.splits
    is_present = np.zeros((len(samples.classes), len(SPLIT_NAMES)), dtype=bool)
    is_present[labels, splits] = True
    has_several_splits = is_present.any(0).sum() > 1
    return tuple(
        samples.classes[label] for label in np.flatnonzero(is_present.sum(1) == 1).tolist() if has_several_splits
    )


def name_group_leaks(samples: Samples) -> tuple[str, ...]:
    """Return the test images whose group is also in train or val, each with its group."""
    leaked_samples = [samples.samples[position] for position in find_group_leaks(samples).tolist()]
    return tuple(f"{escape_path(sample.path)} [{escape_path(sample.group or '')}]" for sample in leaked_samples)


def find_duplicates(samples: Samples) -> Iterator[DatasetProblem]:
    """Yield problems of files with equal bytes: across splits, so that test images are trained on; within a split; and
    with different labels, of which all but one are wrong."""
    table, groups = samples.samples, list(_group_equal_files(samples))
    is_across = [len(np.unique(table.splits[group])) > 1 for group in groups]
    across_splits = [group for group, is_problem in zip(groups, is_across, strict=True) if is_problem]
    within_split = [group for group, is_problem in zip(groups, is_across, strict=True) if not is_problem]
    contradictory = [group for group in groups if len(np.unique(table.labels[group])) > 1]
    for kind, location, problem_groups in (
        ("duplicates_across_splits", "in different splits", across_splits),
        ("duplicates_within_split", "in one split", within_split),
        ("contradictory_labels", "in different classes", contradictory),
    ):
        yield DatasetProblem(kind, f"images with equal files {location}", _format_groups(samples, problem_groups))


def _group_equal_files(samples: Samples) -> Iterable[Sequence[int]]:
    """Return the positions of samples with equal files, for each group of at least two."""
    _, contents = samples.find_unique_contents()
    positions = np.flatnonzero(np.bincount(contents)[contents] > 1)
    groups: dict[int, list[int]] = {}
    for position, content in zip(positions.tolist(), contents[positions].tolist(), strict=True):
        groups.setdefault(content, []).append(position)
    return list(groups.values())


def _format_groups(samples: Samples, groups: Iterable[Sequence[int]]) -> tuple[str, ...]:
    return tuple(
        GROUP_SEPARATOR.join(_format_path(samples, position) for position in _order_group(samples, group))
        for group in groups
    )


def _order_group(samples: Samples, group: Sequence[int]) -> list[int]:
    """Order one sample of each split and class before the others, so that the first names show the problem."""
    first_positions = {
        (int(samples.samples.splits[position]), int(samples.samples.labels[position])): position
        for position in reversed(group)
    }
    firsts = set(first_positions.values())
    return [*sorted(firsts), *(position for position in group if position not in firsts)]


def _abbreviate(name: str) -> str:
    parts = name.split(GROUP_SEPARATOR)
    num_more = len(parts) - MAX_NAMES_PER_GROUP
    return name if num_more <= 0 else GROUP_SEPARATOR.join([*parts[:MAX_NAMES_PER_GROUP], f"{num_more} more"])


def _format_path(samples: Samples, position: int) -> str:
    """Format a path, with its split unless the path starts with the split's folder."""
    sample = samples.samples[position]
    path = escape_path(sample.path)
    return path if path.startswith(f"{sample.split}/") else f"{path} [{sample.split}]"


def find_odd_sizes(samples: Samples, sizes: np.ndarray) -> Iterator[DatasetProblem]:
    """Yield problems of unusual sizes: a side of 1 pixel, one over MAX_SIDE, an aspect ratio over MAX_ASPECT_RATIO."""
    short_sides, long_sides = sizes.min(axis=1, initial=MAX_SIDE), sizes.max(axis=1, initial=1)
    elongated_description = f"images longer than {MAX_ASPECT_RATIO} to 1, of which only the middle is used"
    for kind, description, is_odd in (
        ("one_pixel", "images with a side of 1 pixel", short_sides == 1),
        ("huge", f"images with a side of more than {MAX_SIDE:,} pixels", long_sides > MAX_SIDE),
        ("elongated", elongated_description, long_sides > MAX_ASPECT_RATIO * short_sides),
    ):
        positions = np.flatnonzero(is_odd).tolist()
        paths = [escape_path(samples.samples.paths[position]) for position in positions]
        names = (f"{path} ({_format_size(sizes[position])})" for path, position in zip(paths, positions, strict=True))
        yield DatasetProblem(kind, description, tuple(names))


def _list_paths(samples: Samples, has_problem: np.ndarray) -> tuple[str, ...]:
    return tuple(escape_path(samples.samples.paths[position]) for position in np.flatnonzero(has_problem).tolist())


def _format_size(size: np.ndarray) -> str:
    height, width = size
    return f"{width} x {height}"
