"""Fewer train images than there are: how much does accuracy gain from more?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from thaw.data.samples import Samples

UNUSED = "unused"  # the split of train images that are left aside; still one table, so that caches are shared


def with_fewer(samples: Samples, per_class: int, seed: int) -> Samples:
    """At most `per_class` train images a class, drawn by (seed, class); those of a smaller number are among those of a
    larger one. The others are in the split `unused`, val and test stay as they are."""
    kept = set(_kept(samples, per_class, seed))
    rows = [
        replace(one, split=UNUSED) if one.split == "train" and place not in kept else one
        for place, one in enumerate(samples.samples)
    ]
    return samples.split_as(rows)


def _kept(samples: Samples, per_class: int, seed: int) -> Iterator[int]:
    labels, train = samples.labels(), samples.of("train")
    for label in range(len(samples.classes)):
        members = train[labels[train] == label]
        yield from members[np.random.default_rng((seed, label)).permutation(len(members))[:per_class]].tolist()
