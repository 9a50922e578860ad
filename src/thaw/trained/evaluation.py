"""A trained network on labelled images: the numbers that its run recorded, and what stands behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thaw.analysis.by_class import OfClass, by_class, macro_f1_interval
from thaw.analysis.calibration import Reliability, error_interval, reliability
from thaw.analysis.metrics import confusion_matrix, metrics_of
from thaw.config.faults import Fault, UserFault, listing
from thaw.config.schema import Recipe
from thaw.data.augmentation import augmentation_of
from thaw.data.batches import InOrder
from thaw.data.build import samples_of
from thaw.data.cache import cache_folder
from thaw.data.fewer import with_fewer
from thaw.data.samples import SPLITS, Samples
from thaw.data.store import MOST_NAMED
from thaw.features.key import feature_keys
from thaw.features.table import read_features
from thaw.features.views import PLAIN, views_for
from thaw.trained.prediction import answers
from thaw.trained.restore import Restored

ALL = "all"


@dataclass(frozen=True)
class Evaluation:
    """`positions` [n] in the table of `samples` with float32 `logits` [n, classes]; `broken`: path -> why it is none of
    them."""

    samples: Samples
    positions: np.ndarray
    logits: Tensor
    broken: dict[str, str]

    @property
    def labels(self) -> Tensor:
        return torch.from_numpy(self.samples.labels()[self.positions])

    @property
    def confusion(self) -> np.ndarray:
        """int64 [classes, classes]."""
        found: np.ndarray = confusion_matrix(self.logits.argmax(1), self.labels, len(self.samples.classes)).numpy()
        return found

    def metrics(self) -> dict[str, Any]:
        """As a run's metrics.json has them, and the intervals that take a bootstrap."""
        found = metrics_of(self.logits, self.labels)
        intervals = {"macro_f1_ci95": macro_f1_interval(self.confusion), "ece_ci95": error_interval(*self._sure())}
        return found | {name: list(interval) for name, interval in intervals.items()}

    def by_class(self) -> list[OfClass]:
        return by_class(self.confusion, self.samples.classes)

    def reliability(self) -> Reliability:
        return reliability(*self._sure())

    def _sure(self) -> tuple[np.ndarray, np.ndarray]:
        """The probability of each prediction, and whether it is right."""
        right: np.ndarray = (self.logits.argmax(1) == self.labels).numpy()
        return self.logits.double().softmax(1).max(1).values.numpy(), right


def evaluations(trained: Restored, recipe: Recipe, splits: Sequence[str]) -> dict[str, Evaluation]:
    """By those of `splits` that the data set of `recipe`, cut into splits by its seed, has; `all` are all images.

    Raises:
        UserFault: where the data cannot be had, is of other classes than the network, or has none of the splits.
    """
    samples = samples_of(recipe.dataset, recipe.seed, cache_folder(recipe.data.cache), recipe.data.mirror)
    if recipe.data.train_per_class:
        samples = with_fewer(samples, recipe.data.train_per_class, recipe.seed)
    _check_classes(samples, trained.classes)
    wanted = {split: _positions(samples, split) for split in splits}
    wanted = {split: positions for split, positions in wanted.items() if len(positions)}
    if not wanted:
        counts = ", ".join(f"{count} {split}" for split, count in samples.counts().items())
        raise UserFault("nothing to evaluate.", [Fault(f"split={listing(splits)}", counts, fix=f"split={ALL}")])
    return {split: _evaluated(trained, recipe, samples, positions) for split, positions in wanted.items()}


def _positions(samples: Samples, split: str) -> np.ndarray:
    if split == ALL:
        return np.concatenate([samples.of(one) for one in SPLITS])
    return samples.of(split)


def _check_classes(samples: Samples, classes: Sequence[str]) -> None:
    if samples.classes == tuple(classes):
        return
    lacks, adds = (sorted(one) for one in (set(classes) - set(samples.classes), set(samples.classes) - set(classes)))
    got = f"{len(samples.classes)} classes; unknown to the network: {listing(adds, 8) or 'none'}"
    valid = f"the network's {len(classes)}; not in the data set: {listing(lacks, 8) or 'none'}"
    fault = Fault(str(samples.root), got, valid, "dataset=NAME, or dataset.root=DIR, of data of these classes")
    raise UserFault("the data set has other classes than the network.", [fault])


def _evaluated(trained: Restored, recipe: Recipe, samples: Samples, positions: np.ndarray) -> Evaluation:
    kept = _from_features(trained, recipe, samples, positions)
    if kept is not None:
        return Evaluation(samples, positions, kept, {})
    paths = [samples.root / samples.samples[position].path for position in positions]
    logits, right, broken = list[Tensor](), list[int](), dict[str, str]()
    for answer in answers(trained, paths, recipe.trainer.batch_size):
        if answer.logits is None:
            broken[samples.samples[positions[answer.number]].path] = answer.broken
        else:
            logits.append(answer.logits)
            right.append(answer.number)
    _check_broken(samples.root, broken, recipe.data.broken == "skip" and bool(right))
    return Evaluation(samples, positions[right], torch.cat(logits), broken)


def _check_broken(root: Path, broken: dict[str, str], skips: bool) -> None:
    if broken and not skips:
        named = [Fault(f"{path}: {why}") for path, why in islice(broken.items(), MOST_NAMED)]
        headline = f"{len(broken)} images under {root} cannot be decoded; data.broken=skip leaves them out."
        raise UserFault(headline, named)


def _from_features(trained: Restored, recipe: Recipe, samples: Samples, positions: np.ndarray) -> Tensor | None:
    """By the features of the run itself, the deepest that the cache still has, if any: its own numbers come from them,
    and computing anew would round otherwise."""
    if recipe.cache.mode == "off" or recipe.trainer.test_time_augmentation != "none":
        return None
    views = views_for(samples, augmentation_of(recipe.augment), recipe.seed, recipe.cache.views)
    backbone, network = recipe.backbone, trained.network
    architecture = f"{backbone.library} {version(backbone.library)} {backbone.name}"
    depths = trained.cached[::-1]
    keys = feature_keys(network, depths, architecture, trained.preprocessing, trained.precision, views.identity)
    folder = cache_folder(recipe.data.cache) / "features"
    found = next((depth for depth in depths if (folder / keys[depth]).is_dir()), None)
    if found is None or (views.rows[PLAIN, positions] < 0).any():
        return None
    features = read_features(folder / keys[found], found, views, samples.labels(), trained.device)
    batches = InOrder(positions, recipe.trainer.batch_size).drawn()
    return torch.cat([trained.logits(features.of(one), found) for one in batches])
