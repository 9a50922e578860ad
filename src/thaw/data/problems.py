"""What is wrong with a data set, as far as it can be seen: pure functions over its samples and their decoded sizes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from thaw.config.faults import listing
from thaw.data.rows import shown
from thaw.data.samples import Samples

FEWEST_TRAIN_IMAGES = 2  # of one image, nothing tells what its class has in common
LONGEST_SIDE = 10_000  # pixels
MOST_ELONGATED = 8  # longer side to shorter
NAMED_ON_SCREEN, NAMED_OF_A_GROUP, NAMED_IN_RECORDS = 3, 4, 100
EQUAL = " = "


@dataclass(frozen=True)
class Problem:
    """One kind of thing that is wrong. `names` are all the images, groups of images or classes concerned."""

    kind: str
    what: str
    names: tuple[str, ...]

    def __str__(self) -> str:
        named = listing(map(_brief, self.names[:NAMED_ON_SCREEN]))
        more = len(self.names) - NAMED_ON_SCREEN
        return f"{self.what}: {len(self.names)} ({named}{f', ... ({more} more)' if more > 0 else ''})"

    def plain(self) -> dict[str, Any]:
        """Plain data for `run.json`; of very many names the first, with the count of all."""
        names = list(self.names[:NAMED_IN_RECORDS])
        return {"kind": self.kind, "what": self.what, "count": len(self.names), "names": names}


def problems_in(samples: Samples, sizes: np.ndarray, looks: np.ndarray | None = None) -> list[Problem]:
    """Everything found. `sizes` is int64 [samples, 2], height and width in pixels as decoded; `looks`, where near
    duplicates are wanted, holds a `lookalike.difference_hash` a sample, uint64 [samples, 2]."""
    found = [
        Problem("few_images", f"classes with fewer than {FEWEST_TRAIN_IMAGES} train images", few_images(samples)),
        Problem("one_split", "classes that are in one split only", one_split(samples)),
        *duplicates(samples),
        *odd_sizes(samples, sizes),
    ]
    if looks is not None:
        from thaw.data.lookalike import near_duplicates

        alike = tuple(" ~ ".join(map(printable, pair)) for pair in near_duplicates(samples, looks))
        found.append(Problem("near_duplicates", "pairs of images that look alike, in different splits", alike))
    return [problem for problem in found if problem.names]


def broken(reasons: Mapping[str, str]) -> list[Problem]:
    """`reasons`: printable path -> why it cannot be decoded."""
    names = tuple(f"{path} ({reason})" for path, reason in reasons.items())
    return [Problem("broken", "images that cannot be decoded", names)] if names else []


def few_images(samples: Samples) -> tuple[str, ...]:
    """Classes with fewer than FEWEST_TRAIN_IMAGES train images."""
    counts = Counter(sample.label for sample in samples.samples if sample.split == "train")
    return tuple(name for label, name in enumerate(samples.classes) if counts[label] < FEWEST_TRAIN_IMAGES)


def one_split(samples: Samples) -> tuple[str, ...]:
    """Classes all of whose images are in one split, of a data set that has several."""
    splits: dict[int, set[str]] = {}
    for sample in samples.samples:
        splits.setdefault(sample.label, set()).add(sample.split)
    several = len(set().union(*splits.values())) > 1
    return tuple(samples.classes[label] for label in sorted(splits) if several and len(splits[label]) == 1)


def duplicates(samples: Samples) -> Iterator[Problem]:
    """Files of equal bytes: those in several splits, whose test images were trained on; those within one split; and
    those with several labels, of which all but one are wrong."""
    groups = list(_equal_files(samples))
    across = [group for group in groups if len({samples.samples[one].split for one in group}) > 1]
    within = [group for group in groups if group not in across]
    torn = [group for group in groups if len({samples.samples[one].label for one in group}) > 1]
    yield Problem("duplicates_across_splits", "images with equal files in different splits", _named(samples, across))
    yield Problem("duplicates_within_split", "images with equal files in one split", _named(samples, within))
    yield Problem("contradictory_labels", "images with equal files in different classes", _named(samples, torn))


def _equal_files(samples: Samples) -> Iterable[Sequence[int]]:
    groups: dict[str, list[int]] = {}
    for position, content in enumerate(samples.hashes):
        groups.setdefault(content, []).append(position)
    return [group for group in groups.values() if len(group) > 1]


def _named(samples: Samples, groups: Iterable[Sequence[int]]) -> tuple[str, ...]:
    return tuple(EQUAL.join(_with_split(samples, one) for one in _telling_first(samples, group)) for group in groups)


def _telling_first(samples: Samples, group: Sequence[int]) -> list[int]:
    """One of each split and class, then the others: a long group's first names show what is wrong with it."""
    first = {(samples.samples[one].split, samples.samples[one].label): one for one in reversed(group)}
    return [*sorted(first.values()), *(one for one in group if one not in first.values())]


def _brief(name: str) -> str:
    parts = name.split(EQUAL)
    more = len(parts) - NAMED_OF_A_GROUP
    return name if more <= 0 else EQUAL.join([*parts[:NAMED_OF_A_GROUP], f"{more} more"])


def _with_split(samples: Samples, position: int) -> str:
    """A path says its split only where the data set has a folder for it."""
    sample = samples.samples[position]
    path = printable(sample.path)
    return path if path.startswith(f"{sample.split}/") else f"{path} [{sample.split}]"


def odd_sizes(samples: Samples, sizes: np.ndarray) -> Iterator[Problem]:
    """Images of sizes that are hardly meant: a side of 1 pixel, over LONGEST_SIDE, more than MOST_ELONGATED to one."""
    short, long = sizes.min(axis=1, initial=LONGEST_SIDE), sizes.max(axis=1, initial=1)
    elongated = f"images longer than {MOST_ELONGATED} to 1, of which only the middle is used"
    for kind, what, odd in (
        ("one_pixel", "images with a side of 1 pixel", short == 1),
        ("huge", f"images with a side of more than {LONGEST_SIDE:,} pixels", long > LONGEST_SIDE),
        ("elongated", elongated, long > MOST_ELONGATED * short),
    ):
        places = np.flatnonzero(odd)
        names = (f"{printable(samples.samples[one].path)} ({_size(sizes[one])})" for one in places)
        yield Problem(kind, what, tuple(names))


def printable(path: str) -> str:
    """A file's name need not be UTF-8."""
    return shown([path])[0]


def _size(size: np.ndarray) -> str:
    height, width = size
    return f"{width} x {height}"
