"""Predict the label of each image by classifiers that were fitted to other images."""

from __future__ import annotations

import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from threadpoolctl import threadpool_limits

from thaw.auditing.neighbors import Neighbors

NUM_FOLDS = 5
MAX_AXES = 256  # 512 or all 1280 found no more planted wrong labels on eight data sets, and took 2 to 3 times as long
# Inverse strength of the L2 penalty. It is fixed, so that no label chooses it: of 0.001 to 0.1, 0.003 and 0.01 found
# most planted wrong labels on eight data sets (400 to 1,500 images, 2 to 81 classes); 0.01 is right more often.
REGULARIZATION_C = 0.01
MAX_ITERATIONS = 200
MAX_TRAIN_IMAGES = 10_000  # that a probe is fitted to
MAX_EXACT_GROUPS = 5_000  # scikit-learn takes 11 s for 50,000 groups
NUM_VOTES = 20


@dataclass(frozen=True)
class OutOfFold:
    """Predictions for each image of classifiers that were not fitted to it or its group.

    Attributes:
        probabilities: float64 [images, classes]; the mean of a linear probe and of the votes of the neighbors.
        folds: int64 [images], the part that each image was left out with.
        is_predictable: bool [images]; false if no image of the class of its label is in another fold.
    """

    probabilities: np.ndarray
    folds: np.ndarray
    is_predictable: np.ndarray

    def compute_accuracy(self, labels: np.ndarray) -> float:
        """Return the fraction of all images whose most probable class is that of `labels`, int64 [images]."""
        return float((self.probabilities.argmax(1) == labels).mean())


def merge_groups(groups: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """Return `groups`, int64 [images], with those merged that share a pair of images; `pairs` is int64 [pairs, 2].

    Copies of an image must not be in different folds: a wrong label on both would confirm itself.
    """
    num_groups = int(groups.max()) + 1 if len(groups) else 0
    first, second = groups[pairs.reshape(-1, 2)].T
    graph = coo_array((np.ones(len(first)), (first, second)), shape=(num_groups, num_groups))
    _, components = connected_components(graph, directed=False)
    return np.asarray(components[groups], dtype=np.int64)


def list_linked_pairs(groups: np.ndarray) -> np.ndarray:
    """Return a pair of each image and the first one of its group, int64 [images, 2]."""
    _, first_positions, inverse = np.unique(groups, return_index=True, return_inverse=True)
    return np.stack([np.arange(len(groups)), first_positions[inverse]], axis=1)


def project_features(features: np.ndarray, max_axes: int = MAX_AXES) -> np.ndarray:
    """Return standardized `features`, float [images, width], on their first principal axes, float32 [images, axes].

    No label is involved. A constant feature is only centered.
    """
    mean, std = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    standardized: np.ndarray = ((features - mean) / np.where(std > 0, std, 1)).astype(np.float32)
    if min(standardized.shape) <= max_axes:
        return standardized
    _, axes = np.linalg.eigh(standardized.T @ standardized)  # in the order of rising variance
    return np.asarray(standardized @ axes[:, : -max_axes - 1 : -1])


def assign_folds(labels: np.ndarray, groups: np.ndarray, num_folds: int = NUM_FOLDS, seed: int = 0) -> np.ndarray:
    """Return the fold of each image, int64 [images]: stratified by label, with each group in one fold.

    Labels and groups are int64 [images]. There are fewer folds if there are fewer groups. With very many groups, each
    counts as one image of the class of its first.
    """
    num_groups = len(np.unique(groups))
    num_folds = min(num_folds, num_groups)
    if num_folds < 2:
        return np.zeros(len(labels), dtype=np.int64)
    if num_groups < len(labels) and num_groups <= MAX_EXACT_GROUPS:
        return _split(StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed), labels, groups)
    _, first_positions, group_indices = np.unique(groups, return_index=True, return_inverse=True)
    group_folds = _split(StratifiedKFold(num_folds, shuffle=True, random_state=seed), labels[first_positions], None)
    return np.asarray(group_folds[group_indices])


def _split(
    splitter: StratifiedGroupKFold | StratifiedKFold, labels: np.ndarray, groups: np.ndarray | None
) -> np.ndarray:
    folds = np.zeros(len(labels), dtype=np.int64)
    strata = merge_small_classes(labels, splitter.n_splits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # about classes with fewer images than folds
        for fold, (_, positions) in enumerate(splitter.split(labels, strata, groups)):
            folds[positions] = fold
    return folds


def merge_small_classes(labels: np.ndarray, min_size: int) -> np.ndarray:
    """Return `labels` with all classes of fewer than `min_size` images as one, if it has as many, for stratification.

    scikit-learn refuses data of which every class is smaller than the number of folds.
    """
    sizes = np.bincount(labels)
    is_small = sizes[labels] < min_size
    merged = np.where(is_small, len(sizes), labels)
    return merged if is_small.sum() >= min_size else np.zeros_like(labels) if is_small.all() else labels


def predict_out_of_fold(
    projected: np.ndarray, neighbors: Neighbors, labels: np.ndarray, groups: np.ndarray, seed: int = 0
) -> OutOfFold:
    """Predict the labels, int64 [images], of all images from those of other groups.

    Args:
        projected: the features, float32 [images, axes], from `project_features`.
        neighbors: of the images.
        labels: int64 [images].
        groups: int64 [images], the group of each image: classifiers see none of its group.
        seed: determines the folds.
    """
    num_classes = int(labels.max()) + 1
    folds = assign_folds(labels, groups, seed=seed)
    probe, is_predictable = _predict_by_probe(projected, labels, folds, num_classes)
    votes = _predict_by_neighbors(neighbors, labels, groups, num_classes)
    return OutOfFold((probe + votes) / 2, folds, is_predictable)


def _predict_by_probe(
    projected: np.ndarray, labels: np.ndarray, folds: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Fit a probe for each fold, side by side: their products of matrices are so small that two threads for each take
    longer than one, on a machine with other work 9 times as long."""
    probabilities = np.zeros((len(labels), num_classes))
    is_predictable = np.zeros(len(labels), dtype=bool)

    def predict_fold(fold: int) -> None:
        left_out, train = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        classes = np.unique(labels[train])
        is_predictable[left_out] = np.isin(labels[left_out], classes)
        if len(classes) < 2:
            probabilities[np.ix_(left_out, classes)] = 1.0
            return
        train = draw_stratified(train, labels, MAX_TRAIN_IMAGES)
        model = LogisticRegression(C=REGULARIZATION_C, max_iter=MAX_ITERATIONS).fit(projected[train], labels[train])
        probabilities[np.ix_(left_out, model.classes_)] = model.predict_proba(projected[left_out])

    with threadpool_limits(1), warnings.catch_warnings(), ThreadPoolExecutor(torch.get_num_threads()) as pool:
        warnings.simplefilter("ignore", ConvergenceWarning)  # the ranking does not need the last digits
        list(pool.map(predict_fold, np.unique(folds).tolist()))
    return probabilities, is_predictable


def draw_stratified(positions: np.ndarray, labels: np.ndarray, max_images: int) -> np.ndarray:
    """Return at most `max_images` of `positions`, about the same fraction of each class but at least one image."""
    if len(positions) <= max_images:
        return positions
    shuffled = np.random.default_rng(0).permutation(positions)
    order = np.argsort(labels[shuffled], kind="stable")
    _, starts, counts = np.unique(labels[shuffled][order], return_index=True, return_counts=True)
    ranks = (np.arange(len(shuffled)) - np.repeat(starts, counts)) / np.repeat(counts, counts)
    return np.sort(shuffled[order][np.argsort(ranks, kind="stable")[:max_images]])


def _predict_by_neighbors(neighbors: Neighbors, labels: np.ndarray, groups: np.ndarray, num_classes: int) -> np.ndarray:
    """Return the shares of the votes of the nearest images of other groups, and one vote of the class frequencies."""
    is_other = groups[neighbors.indices] != groups[:, None]
    is_voting = is_other & (is_other.cumsum(1) <= NUM_VOTES)
    cells = np.arange(len(labels))[:, None] * num_classes + labels[neighbors.indices]
    votes = np.bincount(cells.ravel(), is_voting.ravel(), minlength=len(labels) * num_classes)
    prior = np.bincount(labels, minlength=num_classes) / len(labels)
    return np.asarray((votes.reshape(len(labels), num_classes) + prior) / (is_voting.sum(1, keepdims=True) + 1))
