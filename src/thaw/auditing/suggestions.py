"""Suggest which images to leave out and which labels to correct, as files for data.exclude and data.relabel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from thaw.auditing.findings import Finding
from thaw.data.sample_table import SPLITS
from thaw.data.samples import Samples

BEFORE = "left out before"


@dataclass(frozen=True)
class Exclusion:
    """A row of exclude.csv: an image to leave out, the image that stays instead, and why."""

    path: str
    other_path: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the cells by column."""
        return asdict(self)


@dataclass(frozen=True)
class Relabeling:
    """A row of relabel.csv: an image, the label that it probably has, the one that it has now, and how sure that is."""

    path: str
    label: str
    given_label: str = ""
    score: float | None = None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Return the cells by column."""
        return asdict(self)


def suggest_relabelings(
    findings: Iterable[Finding], exclusions: Iterable[Exclusion], samples: Samples
) -> tuple[Relabeling, ...]:
    """Return the labels that data.relabel has set, then the suggestions of `findings` of wrong labels, without images
    that `exclusions` leave out."""
    excluded_paths = {exclusion.path for exclusion in exclusions}
    labels_by_path = dict(zip(samples.samples.paths, samples.samples.list_class_names(), strict=True))
    correction = samples.corrections.get("relabeled")
    before = [path for path in (correction.paths if correction else ()) if path in labels_by_path]
    return (
        *(Relabeling(path, labels_by_path[path], note="checked before") for path in before),
        *(
            Relabeling(finding.path, finding.suggested_label, finding.label, finding.score, finding.note)
            for finding in findings
            if finding.suggested_label and finding.path not in excluded_paths
        ),
    )


@dataclass(frozen=True)
class CopyGroups:
    """Which images are copies of each other, int64 [images] each: the group of an image by equal pixels, and by pixels
    that are nearly equal. `label_scores`, float64 [images], are higher the surer a label is right: where copies have
    several labels, the image with the surest one stays."""

    exact: np.ndarray
    near: np.ndarray
    label_scores: np.ndarray


def suggest_exclusions(copies: CopyGroups, blank_positions: Sequence[int], samples: Samples) -> tuple[Exclusion, ...]:
    """Return the images that data.exclude leaves out already, then those that can safely be left out too.

    Where the data set has its own splits, these are train and validation images with a copy in test, train images with
    a copy in validation, and of exact copies within a split all but one. Where splits are drawn, all but one of each
    group of copies are: another `dataset.split_seed` or a fold would put other copies on both sides. Blank images are
    left out. The last train image of a class stays.
    """
    correction = samples.corrections.get("excluded")
    before = [Exclusion(path, note=BEFORE) for path in (correction.paths if correction else ())]
    proposals = {position: Exclusion(samples.samples[position].path, note="blank") for position in blank_positions}
    for members in _iter_groups(copies.near):
        remaining = [position for position in members if position not in proposals]
        for position, kept in _choose_excluded(remaining, copies, samples):
            path, kept_path = (samples.samples[index].path for index in (position, kept))
            proposals[position] = Exclusion(path, kept_path, _describe_copy(position, kept, copies, samples))
    return (*before, *_keep_last_images(proposals, samples))


def _iter_groups(groups: np.ndarray) -> Iterable[list[int]]:
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    return (members.tolist() for members in np.split(order, starts) if len(members) > 1)


def _choose_excluded(members: Sequence[int], copies: CopyGroups, samples: Samples) -> list[tuple[int, int]]:
    """Return the images of a group of copies to leave out, each with the image that stays instead."""

    def get_rank(position: int) -> tuple[int, float, str]:
        sample = samples.samples[position]
        return -SPLITS.index(sample.split), -float(copies.label_scores[position]), sample.path

    ordered = sorted(members, key=get_rank)
    kept = ordered[:1]
    excluded = []
    for position in ordered[1:]:
        reason = next((other for other in kept if _replaces(other, position, copies, samples)), None)
        if reason is None:
            kept.append(position)
        else:
            excluded.append((position, reason))
    return excluded


def _replaces(kept: int, position: int, copies: CopyGroups, samples: Samples) -> bool:
    """Return whether the image at `position` is left out because that at `kept` stays."""
    drawn_splits = {split for split, count in samples.count_per_split().items() if count} - {*samples.own_splits}
    pools = [
        "train" if samples.samples[index].split in drawn_splits else samples.samples[index].split
        for index in (kept, position)
    ]
    is_drawn = bool(drawn_splits) and pools[0] == "train"
    return pools[0] != pools[1] or is_drawn or bool(copies.exact[kept] == copies.exact[position])


def _describe_copy(position: int, kept: int, copies: CopyGroups, samples: Samples) -> str:
    sample, kept_sample = samples.samples[position], samples.samples[kept]
    kind = "exact copy" if copies.exact[position] == copies.exact[kept] else "near copy"
    place = f" in {kept_sample.split}" if sample.split != kept_sample.split else ""
    names = samples.classes[sample.label], samples.classes[kept_sample.label]
    conflict = f"; labeled {names[0]} here and {names[1]} there" if names[0] != names[1] else ""
    return f"{kind} of an image{place}{conflict}"


def _keep_last_images(proposals: Mapping[int, Exclusion], samples: Samples) -> list[Exclusion]:
    """Return `proposals` without those that would leave a class without train images, or a split without images."""
    class_counts = Counter(sample.label for sample in samples.samples if sample.split == "train")
    split_counts = samples.count_per_split()
    exclusions = []
    for position, exclusion in proposals.items():
        sample = samples.samples[position]
        is_last_of_class = sample.split == "train" and class_counts[sample.label] == 1
        if is_last_of_class or split_counts[sample.split] == 1:
            continue
        class_counts[sample.label] -= sample.split == "train"
        split_counts[sample.split] -= 1
        exclusions.append(exclusion)
    return exclusions
