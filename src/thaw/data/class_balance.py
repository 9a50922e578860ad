"""Compensate for classes of unequal size: by a weight per class, or by drawing every class equally often."""

from __future__ import annotations

import numpy as np


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Return weights, float32 [classes], inversely proportional to the frequency of each class in `labels`, int64 [n].

    Their mean over the images is 1, so that the learning rate keeps its meaning. A class without images has weight 0.
    """
    counts = np.bincount(labels, minlength=num_classes)
    weights = np.where(counts > 0, len(labels) / (np.maximum(counts, 1) * np.count_nonzero(counts)), 0.0)
    return weights.astype(np.float32)


def balanced_sample(positions: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Draw as many samples as there are `positions`, int64 [n], with equal numbers of each class, class by class.

    The numbers of two classes, and of two images of a class, differ by at most 1. `labels` is int64 [samples], the
    labels of all samples that `positions` may refer to. The k-th further copy of a sample is numbered position +
    k * samples, so that each copy is augmented differently.
    """
    candidate_labels = labels[positions]
    present_classes = rng.permutation(np.unique(candidate_labels))  # the first ones get the remaining images
    quotas = np.full(len(present_classes), len(positions) // len(present_classes))
    quotas[: len(positions) % len(present_classes)] += 1
    positions_per_class = [
        _repeat_shuffled(positions[candidate_labels == label], quota, len(labels), rng)
        for label, quota in zip(present_classes, quotas, strict=True)
    ]
    return np.concatenate(positions_per_class)


def _repeat_shuffled(members: np.ndarray, count: int, num_samples: int, rng: np.random.Generator) -> np.ndarray:
    permutations = [rng.permutation(members) + copy * num_samples for copy in range(-(-count // len(members)))]
    return np.concatenate(permutations)[:count] if permutations else members[:0]
