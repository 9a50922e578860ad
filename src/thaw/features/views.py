"""Which views of the images a feature cache holds, and which of them an epoch sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from thaw.data.augmentation import Augmentation
from thaw.data.batches import EVALUATION
from thaw.data.samples import Samples

PLAIN = 0  # the view that evaluation sees


@dataclass(frozen=True)
class Pass:
    """The images at `positions`, augmented as in `epoch` (EVALUATION: not at all), give the next rows of a cache."""

    epoch: int
    augmentation: Augmentation
    positions: np.ndarray


@dataclass(frozen=True)
class Views:
    """`rows` is int64 [views, samples], the row of a cache that a sample's view lies in, -1 where there is none.
    `seen(epoch, copies)` gives the view of each train image in an epoch; copies of a sample are numbered as
    `balance.evenly_drawn` says. `identity` is plain data that differs where the rows' images do."""

    passes: tuple[Pass, ...]
    rows: np.ndarray
    identity: dict[str, Any]
    seen: Callable[[int, np.ndarray], np.ndarray]

    @property
    def row_count(self) -> int:
        return sum(len(one.positions) for one in self.passes)


def views_for(samples: Samples, augmentation: Augmentation, seed: int, count: int | None) -> Views:
    """Both views where augmentation mirrors and nothing else, else `count` draws of each train image. Of augmentation
    without a count there are plain views alone: it cannot be trained on cached features."""
    if augmentation.flips_alone:
        return flipped_views(samples, augmentation, seed)
    if augmentation.is_empty or count is None:
        return plain_views(samples)
    return drawn_views(samples, augmentation, seed, count)


def plain_views(samples: Samples) -> Views:
    """A row for each content, however the samples are split: runs over several seeds share it."""
    first, which = samples.contents()
    identity = {"images": [samples.hashes[position] for position in first]}
    plain = Pass(EVALUATION, Augmentation(), first)
    return Views((plain,), which[None], identity, lambda _, copies: np.full(len(copies), PLAIN))


def flipped_views(samples: Samples, augmentation: Augmentation, seed: int) -> Views:
    """Exact: mirror images can only be drawn or not."""
    plain, train = plain_views(samples), samples.of("train")
    mirrored = np.full(len(samples.samples), -1)
    mirrored[train] = plain.row_count + np.arange(len(train))
    flips = Pass(0, Augmentation(flip=1.0), train)
    identity = plain.identity | {"flipped": [samples.hashes[position] for position in train]}
    return Views(
        (*plain.passes, flips),
        np.stack([plain.rows[PLAIN], mirrored]),
        identity,
        lambda epoch, copies: augmentation.mirrored(seed, epoch, copies).astype(np.int64),
    )


def drawn_views(samples: Samples, augmentation: Augmentation, seed: int, count: int) -> Views:
    """An approximation: `count` draws an image, those of the first epochs, take the place of one an epoch. Each epoch
    sees one of them by chance."""
    train, rest = samples.of("train"), np.concatenate([samples.of("val"), samples.of("test")])
    passes = [Pass(EVALUATION, Augmentation(), rest), *(Pass(view, augmentation, train) for view in range(count))]
    rows = np.full((1 + count, len(samples.samples)), -1)
    rows[PLAIN, rest] = np.arange(len(rest))
    rows[1:, train] = len(rest) + np.arange(count * len(train)).reshape(count, len(train))
    identity = {"samples": samples.fingerprint, "augmentation": asdict(augmentation), "seed": seed, "views": count}
    return Views(
        tuple(passes), rows, identity, lambda epoch, copies: 1 + augmentation.chosen(count, seed, epoch, copies)
    )
