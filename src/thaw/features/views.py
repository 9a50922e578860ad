"""Which views of the images a feature cache holds, and which of them an epoch sees."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from thaw.data.augmentation import Augmentation
from thaw.data.batches import EVALUATION_EPOCH
from thaw.data.samples import Samples

EVALUATION_VIEW = 0  # the view that evaluation sees


@dataclass(frozen=True)
class ViewPass:
    """The images at `positions`, augmented as in `epoch` (EVALUATION: not at all), give the next rows of a cache."""

    epoch: int
    augmentation: Augmentation
    positions: np.ndarray


@dataclass(frozen=True)
class Views:
    """`rows` is int64 [views, samples], the row of a cache that a sample's view lies in, -1 where there is none.
    `seen(epoch, copies)` gives the view of each train image in an epoch; copies of a sample are numbered as
    `balance.evenly_drawn` says. `identity` is plain data that differs where the rows' images do."""

    passes: tuple[ViewPass, ...]
    rows: np.ndarray
    identity: dict[str, Any]
    select_views: Callable[[int, np.ndarray], np.ndarray]

    @property
    def num_rows(self) -> int:
        return sum(len(view_pass.positions) for view_pass in self.passes)


def build_views(samples: Samples, augmentation: Augmentation, seed: int, num_draws: int | None) -> Views:
    """Both views where augmentation mirrors and nothing else, else `count` draws of each train image. Of augmentation
    without a count there are plain views alone: it cannot be trained on cached features."""
    cached_views = augmentation.plan_cached_views(num_draws)
    if cached_views.kind == "flipped":
        return build_flipped_views(samples, augmentation, seed)
    if cached_views.kind == "sampled":
        return build_drawn_views(samples, augmentation, seed, cached_views.count)
    return build_plain_views(samples)


def build_plain_views(samples: Samples) -> Views:
    """A row for each content, however the samples are split: runs over several seeds share it."""
    first_positions, content_rows = samples.find_unique_contents()
    identity = {"images": [samples.hashes[position] for position in first_positions]}
    plain_pass = ViewPass(EVALUATION_EPOCH, Augmentation(), first_positions)
    return Views((plain_pass,), content_rows[None], identity, lambda _, copies: np.full(len(copies), EVALUATION_VIEW))


def build_flipped_views(samples: Samples, augmentation: Augmentation, seed: int) -> Views:
    """Exact: mirror images can only be drawn or not."""
    unflipped_views, train_positions = build_plain_views(samples), samples.get_positions("train")
    flipped_rows = np.full(len(samples.samples), -1)
    flipped_rows[train_positions] = unflipped_views.num_rows + np.arange(len(train_positions))
    flip_pass = ViewPass(0, Augmentation(flip=1.0), train_positions)
    identity = unflipped_views.identity | {"flipped": [samples.hashes[position] for position in train_positions]}
    return Views(
        (*unflipped_views.passes, flip_pass),
        np.stack([unflipped_views.rows[EVALUATION_VIEW], flipped_rows]),
        identity,
        lambda epoch, copies: augmentation.compute_flip_mask(seed, epoch, copies).astype(np.int64),
    )


def build_drawn_views(samples: Samples, augmentation: Augmentation, seed: int, num_draws: int) -> Views:
    """An approximation: `count` draws an image, those of the first epochs, take the place of one an epoch. Each epoch
    sees one of them by chance."""
    train_positions, evaluation_positions = (
        samples.get_positions("train"),
        np.concatenate([samples.get_positions("val"), samples.get_positions("test")]),
    )
    passes = [
        ViewPass(EVALUATION_EPOCH, Augmentation(), evaluation_positions),
        *(ViewPass(view, augmentation, train_positions) for view in range(num_draws)),
    ]
    rows = np.full((1 + num_draws, len(samples.samples)), -1)
    rows[EVALUATION_VIEW, evaluation_positions] = np.arange(len(evaluation_positions))
    rows[1:, train_positions] = len(evaluation_positions) + np.arange(num_draws * len(train_positions)).reshape(
        num_draws, len(train_positions)
    )
    identity = {"samples": samples.fingerprint, "augmentation": asdict(augmentation), "seed": seed, "views": num_draws}
    return Views(
        tuple(passes),
        rows,
        identity,
        lambda epoch, copies: 1 + augmentation.sample_view_indices(num_draws, seed, epoch, copies),
    )
