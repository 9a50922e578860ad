"""What makes up for classes of unequal size: a weight a class, or images drawn so that every class comes as often."""

from __future__ import annotations

import numpy as np


def class_weights(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """float32 [classes], inversely proportional to how often each occurs in int64 `labels` [n]; their mean over the
    images is 1, so the learning rate means the same. 0 for a class that does not occur."""
    counts = np.bincount(labels, minlength=num_classes)
    weights = np.where(counts > 0, len(labels) / (np.maximum(counts, 1) * np.count_nonzero(counts)), 0.0)
    return weights.astype(np.float32)


def balanced_sample(positions: np.ndarray, labels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many samples as there are `positions`, int64 [n], each class as often as the next but for one image, class by
    class. `labels` is int64 [samples], of all samples that `positions` may name.

    Within a class every image comes equally often but for one time. A sample's k-th further copy is its position plus k
    times the count of samples: a number of its own, so that it is augmented in its own way.
    """
    candidate_labels = labels[positions]
    present_classes = rng.permutation(
        np.unique(candidate_labels)
    )  # whichever are first get the images that are left over
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
