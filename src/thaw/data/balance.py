"""What makes up for classes of unequal size: a weight a class, or images drawn so that every class comes as often."""

from __future__ import annotations

import numpy as np


def class_weights(labels: np.ndarray, classes: int) -> np.ndarray:
    """float32 [classes], inversely proportional to how often each occurs in int64 `labels` [n]; their mean over the
    images is 1, so the learning rate means the same. 0 for a class that does not occur."""
    counts = np.bincount(labels, minlength=classes)
    shares = np.where(counts > 0, len(labels) / (np.maximum(counts, 1) * np.count_nonzero(counts)), 0.0)
    return shares.astype(np.float32)


def evenly_drawn(positions: np.ndarray, labels: np.ndarray, dice: np.random.Generator) -> np.ndarray:
    """As many samples as there are `positions`, int64 [n], each class as often as the next but for one image, class by
    class. `labels` is int64 [samples], of all samples that `positions` may name.

    Within a class every image comes equally often but for one time. A sample's k-th further copy is its position plus k
    times the count of samples: a number of its own, so that it is augmented in its own way.
    """
    own = labels[positions]
    present = dice.permutation(np.unique(own))  # whichever are first get the images that are left over
    quotas = np.full(len(present), len(positions) // len(present))
    quotas[: len(positions) % len(present)] += 1
    drawn = [
        _repeated(positions[own == label], quota, len(labels), dice)
        for label, quota in zip(present, quotas, strict=True)
    ]
    return np.concatenate(drawn)


def _repeated(members: np.ndarray, count: int, samples: int, dice: np.random.Generator) -> np.ndarray:
    rounds = [dice.permutation(members) + copy * samples for copy in range(-(-count // len(members)))]
    return np.concatenate(rounds)[:count] if rounds else members[:0]
