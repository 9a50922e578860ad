"""Fewer train images than there are: how much does accuracy gain from more?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from thaw.data.samples import Samples

UNUSED_SPLIT = "unused"  # the split of train images that are left aside; still one table, so that caches are shared


def limit_per_class(samples: Samples, per_class: int, seed: int) -> Samples:
    """At most `per_class` train images a class, drawn by (seed, class); those of a smaller number are among those of a
    larger one. The others are in the split `unused`, val and test stay as they are."""
    kept_positions = set(_sample_positions(samples, per_class, seed))
    new_samples = [
        replace(sample, split=UNUSED_SPLIT) if sample.split == "train" and position not in kept_positions else sample
        for position, sample in enumerate(samples.samples)
    ]
    return samples.replace_splits(new_samples)


def _sample_positions(samples: Samples, per_class: int, seed: int) -> Iterator[int]:
    labels, train_positions = samples.get_labels(), samples.get_positions("train")
    for label in range(len(samples.classes)):
        class_positions = train_positions[labels[train_positions] == label]
        yield from class_positions[
            np.random.default_rng((seed, label)).permutation(len(class_positions))[:per_class]
        ].tolist()
