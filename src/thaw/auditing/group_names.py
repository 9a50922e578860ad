"""Find groups that the file names suggest: images of one patient, camera, video or photographer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from thaw.auditing.name_patterns import NamePattern, list_patterns, quote_override
from thaw.auditing.neighbors import Neighbors
from thaw.auditing.out_of_fold import NUM_FOLDS, list_linked_pairs, merge_groups, predict_out_of_fold

NUM_COMPARED = 5  # nearest neighbors of the same class that are compared
NUM_PERMUTATIONS, NUM_FIRST_PERMUTATIONS = 199, 5  # the rest only if the first are far below
MAX_P_VALUE = 1 / (NUM_PERMUTATIONS + 1)  # no permutation is as good
MIN_EXCESS = 0.2  # by which the fraction of neighbors of the same group exceeds that of groups drawn at random
MIN_TIMES_CHANCE = 3.0
MIN_GROUPED = 0.3  # of the images, which have another image of their group
MAX_GROUP_FRACTION = 0.5  # of the images in the largest group
NUM_EXAMPLES, NUM_EXAMPLE_PATHS = 3, 4


@dataclass(frozen=True)
class GroupExample:
    """A group and some of its images."""

    name: str
    num_images: int
    paths: tuple[str, ...]


@dataclass(frozen=True)
class GroupSuggestion:
    """Groups in the file names whose images resemble each other far more than other images of their class.

    Attributes:
        pattern: the regular expression, for `dataset.group_pattern`.
        override: what to type on a command line.
        num_groups: number of groups.
        examples: the largest groups.
        same_group: fraction of the nearest images of the same class that are of the same group.
        chance: the same for groups drawn at random.
        p_value: of such a difference by chance (permutations within classes).
        random_accuracy: of a classifier on images that it was not fitted to, with a random split.
        grouped_accuracy: with a split that keeps groups together.
    """

    pattern: str
    override: str
    num_groups: int
    examples: tuple[GroupExample, ...]
    same_group: float
    chance: float
    p_value: float
    random_accuracy: float
    grouped_accuracy: float

    def describe(self) -> str:
        """Return the evidence as a sentence without its end."""
        points = 100 * (self.random_accuracy - self.grouped_accuracy)
        effect = f"which flatters by {points:.1f} points" if points > 0 else "which does not flatter here"
        return (
            f"{self.same_group:.0%} of the nearest images of the same class are of the same of {self.num_groups} groups"
            f" ({self.chance:.0%} by chance); a linear probe and neighbors are right in {self.random_accuracy:.3f} of "
            f"cases with a random split, {effect}, and in {self.grouped_accuracy:.3f} with groups kept together"
        )


@dataclass(frozen=True)
class _Similarity:
    same_group: float
    chance: float
    p_value: float

    @property
    def is_far_above_chance(self) -> bool:
        excess = self.same_group - self.chance
        is_large = excess >= MIN_EXCESS and self.same_group >= MIN_TIMES_CHANCE * self.chance
        return is_large and self.p_value <= MAX_P_VALUE


def suggest_groups(
    paths: Sequence[str], projected: np.ndarray, neighbors: Neighbors, labels: np.ndarray, copies: np.ndarray
) -> GroupSuggestion | None:
    """Return the groups that the file names suggest, or None.

    Args:
        paths: of the images, relative to the root of the data set.
        projected: features, from `project_features`.
        neighbors: of the images.
        labels: int64 [images].
        copies: int64 [images], groups of copies, which are kept together in both splits that are compared.
    """
    selected = _select_pattern(paths, neighbors, labels)
    if selected is None:
        return None
    pattern, similarity = selected
    linked_copies = merge_groups(copies, list_linked_pairs(pattern.groups))
    random_accuracy, grouped_accuracy = (
        predict_out_of_fold(projected, neighbors, labels, groups).compute_accuracy(labels)
        for groups in (copies, linked_copies)
    )
    return GroupSuggestion(
        pattern.pattern,
        quote_override(pattern.pattern),
        len(pattern.names),
        _list_examples(pattern, paths),
        similarity.same_group,
        similarity.chance,
        similarity.p_value,
        random_accuracy,
        grouped_accuracy,
    )


def _select_pattern(
    paths: Sequence[str], neighbors: Neighbors, labels: np.ndarray
) -> tuple[NamePattern, _Similarity] | None:
    """Return the pattern whose groups are most similar, or a coarser one whose groups are similar beyond these.

    Of equal ones the finest is taken: where images are numbered in each folder, the same number is no group.
    """
    candidates = [
        (candidate, similarity)
        for candidate in list_patterns(paths)
        if _can_be_groups(candidate.groups)
        and (similarity := _measure_similarity(candidate.groups, neighbors, labels)).is_far_above_chance
    ]
    if not candidates:
        return None
    best = max(candidates, key=lambda item: (item[1].same_group - item[1].chance, len(item[0].names)))
    for candidate in sorted(candidates, key=lambda item: -len(item[0].names)):
        coarse, fine = candidate[0].groups, best[0].groups
        if _is_coarser(coarse, fine) and _is_similar_beyond(coarse, fine, neighbors, labels):
            best = candidate
    return best


def _can_be_groups(groups: np.ndarray) -> bool:
    """Return whether there are enough groups for folds, of more than one image, and none has most of the images."""
    sizes = np.bincount(groups)
    is_grouped = float((sizes[groups] > 1).mean()) >= MIN_GROUPED
    return len(sizes) >= NUM_FOLDS and is_grouped and sizes.max() <= MAX_GROUP_FRACTION * len(groups)


def _measure_similarity(groups: np.ndarray, neighbors: Neighbors, labels: np.ndarray) -> _Similarity:
    """Compare the groups of each image and of its nearest images of the same class with groups permuted in classes."""
    same_class = _select_first(neighbors.indices, labels[neighbors.indices] == labels[:, None])
    is_reference = np.zeros(len(labels), dtype=bool)
    is_reference[neighbors.references] = True

    def compute_fraction(image_groups: np.ndarray) -> float:
        _, cells = np.unique(image_groups * (labels.max() + 1) + labels, return_inverse=True)
        num_others = np.bincount(cells, is_reference)[cells] - is_reference
        num_compared = np.minimum(num_others, NUM_COMPARED)
        is_compared = np.arange(NUM_COMPARED) < num_compared[:, None]
        is_same = (image_groups[same_class] == image_groups[:, None]) & (same_class >= 0) & is_compared
        is_counted = num_compared > 0
        if not is_counted.any():
            return 0.0
        return float((is_same.sum(1)[is_counted] / num_compared[is_counted]).mean())

    return _permute(compute_fraction, groups, labels)


def _is_similar_beyond(coarse: np.ndarray, fine: np.ndarray, neighbors: Neighbors, labels: np.ndarray) -> bool:
    """Return whether images of one coarse group are similar even if their fine groups differ.

    Coarse groups are permuted among the fine groups of a class.
    """
    others = _select_first(neighbors.indices, fine[neighbors.indices] != fine[:, None])
    _, first_positions = np.unique(fine, return_index=True)
    sizes = np.bincount(coarse[first_positions])
    is_counted = sizes[coarse] > 1  # the coarse group has other fine groups

    def compute_fraction(coarse_of_fine: np.ndarray) -> float:
        image_groups = coarse_of_fine[fine]
        is_same = (image_groups[others] == image_groups[:, None]) & (others >= 0)
        return float(is_same[is_counted].mean()) if is_counted.any() else 0.0

    similarity = _permute(compute_fraction, coarse[first_positions], labels[first_positions])
    return similarity.p_value <= MAX_P_VALUE and similarity.same_group >= MIN_TIMES_CHANCE * similarity.chance


def _select_first(indices: np.ndarray, is_selected: np.ndarray) -> np.ndarray:
    """Return the first selected neighbors of each image, int64 [images, NUM_COMPARED]; -1 where there are fewer."""
    order = np.argsort(~is_selected, axis=1, kind="stable")[:, :NUM_COMPARED]
    first = np.where(np.take_along_axis(is_selected, order, 1), np.take_along_axis(indices, order, 1), -1)
    return np.pad(first, ((0, 0), (0, NUM_COMPARED - first.shape[1])), constant_values=-1)


def _permute(compute_fraction: Callable[[np.ndarray], float], groups: np.ndarray, strata: np.ndarray) -> _Similarity:
    """Compare the fraction of `groups` with its mean over permutations of them within `strata`; both int64 [items]."""
    same_group, rng, fractions = compute_fraction(groups), np.random.default_rng(0), list[float]()
    order = np.argsort(strata, kind="stable")
    for _ in range(NUM_PERMUTATIONS):
        permuted = np.empty_like(groups)
        permuted[order] = groups[np.lexsort((rng.random(len(groups)), strata))]
        fractions.append(compute_fraction(permuted))
        if len(fractions) == NUM_FIRST_PERMUTATIONS and same_group < MIN_TIMES_CHANCE * np.mean(fractions):
            return _Similarity(same_group, float(np.mean(fractions)), 1.0)
    num_as_high = sum(fraction >= same_group for fraction in fractions)
    return _Similarity(same_group, float(np.mean(fractions)), (num_as_high + 1) / (NUM_PERMUTATIONS + 1))


def _is_coarser(coarse: np.ndarray, fine: np.ndarray) -> bool:
    """Return whether each group of `fine` is in one group of `coarse`, which has fewer."""
    num_pairs = len(np.unique(fine * (coarse.max() + 1) + coarse))
    return int(coarse.max()) < int(fine.max()) and num_pairs == int(fine.max()) + 1


def _list_examples(candidate: NamePattern, paths: Sequence[str]) -> tuple[GroupExample, ...]:
    sizes = np.bincount(candidate.groups)
    examples = []
    for group in np.argsort(-sizes, kind="stable")[:NUM_EXAMPLES]:
        positions = np.flatnonzero(candidate.groups == group)[:NUM_EXAMPLE_PATHS]
        example_paths = tuple(paths[position] for position in positions)
        examples.append(GroupExample(candidate.names[group], int(sizes[group]), example_paths))
    return tuple(examples)
