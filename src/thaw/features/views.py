"""Define which views of the images a feature cache holds, and which of them an epoch sees."""

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
    """The next rows of a cache: the images at `positions`, augmented as in `epoch` (EVALUATION_EPOCH: not at all)."""

    epoch: int
    augmentation: Augmentation
    positions: np.ndarray


@dataclass(frozen=True)
class Views:
    """The views of a data set's images that a feature cache holds.

    Attributes:
        passes: the images in the order of the rows.
        rows: int64 [views, samples], the row of each sample's view, -1 for none.
        identity: plain data that differs if the images of the rows do.
        select_views: takes an epoch and copies of samples, int64 [n], numbered as `balanced_sample` numbers them;
            returns the view that training sees of each, int64 [n].
    """

    passes: tuple[ViewPass, ...]
    rows: np.ndarray
    identity: dict[str, Any]
    select_views: Callable[[int, np.ndarray], np.ndarray]

    @property
    def num_rows(self) -> int:
        """The number of rows of the cache."""
        return sum(len(view_pass.positions) for view_pass in self.passes)


def build_views(samples: Samples, augmentation: Augmentation, seed: int, num_draws: int | None) -> Views:
    """Build the views that can be cached for `augmentation`, see `Augmentation.plan_cached_views`.

    If training cannot use cached features, these are the plain images, which evaluation sees.
    """
    cached_views = augmentation.plan_cached_views(num_draws)
    if cached_views.kind == "flipped":
        return build_flipped_views(samples, augmentation, seed)
    if cached_views.kind == "sampled":
        return build_drawn_views(samples, augmentation, seed, cached_views.count)
    return build_plain_views(samples)


def build_plain_views(samples: Samples) -> Views:
    """Build one view of each distinct image. It does not depend on the split, so runs with several seeds share it."""
    first_positions, content_rows = samples.find_unique_contents()
    identity = {"images": samples.hashes.subset(first_positions).compute_digest()}
    plain_pass = ViewPass(EVALUATION_EPOCH, Augmentation(), first_positions)
    return Views((plain_pass,), content_rows[None], identity, lambda _, copies: np.full(len(copies), EVALUATION_VIEW))


def build_flipped_views(samples: Samples, augmentation: Augmentation, seed: int) -> Views:
    """Build the plain view of each image and the mirror image of each train image. Nothing else can be drawn, so
    training sees the same images as without a cache."""
    plain_views, train_positions = build_plain_views(samples), samples.get_positions("train")
    flipped_rows = np.full(len(samples.samples), -1)
    flipped_rows[train_positions] = plain_views.num_rows + np.arange(len(train_positions))
    flip_pass = ViewPass(0, Augmentation(flip=1.0), train_positions)
    identity = plain_views.identity | {"flipped": samples.hashes.subset(train_positions).compute_digest()}
    return Views(
        (*plain_views.passes, flip_pass),
        np.stack([plain_views.rows[EVALUATION_VIEW], flipped_rows]),
        identity,
        lambda epoch, copies: augmentation.compute_flip_mask(seed, epoch, copies).astype(np.int64),
    )


def build_drawn_views(samples: Samples, augmentation: Augmentation, seed: int, num_draws: int) -> Views:
    """Build the plain view of each evaluation image and `num_draws` random views of each train image, those of the
    first epochs. Each epoch sees a random one of them: an approximation of a new view per epoch."""
    train_positions = samples.get_positions("train")
    evaluation_positions = np.concatenate([samples.get_positions("val"), samples.get_positions("test")])
    num_train, num_evaluation = len(train_positions), len(evaluation_positions)
    train_passes = [ViewPass(view, augmentation, train_positions) for view in range(num_draws)]
    rows = np.full((1 + num_draws, len(samples.samples)), -1)
    rows[EVALUATION_VIEW, evaluation_positions] = np.arange(num_evaluation)
    rows[1:, train_positions] = num_evaluation + np.arange(num_draws * num_train).reshape(num_draws, num_train)
    return Views(
        (ViewPass(EVALUATION_EPOCH, Augmentation(), evaluation_positions), *train_passes),
        rows,
        {"samples": samples.fingerprint, "augmentation": asdict(augmentation), "seed": seed, "views": num_draws},
        lambda epoch, copies: 1 + augmentation.sample_view_indices(num_draws, seed, epoch, copies),
    )
