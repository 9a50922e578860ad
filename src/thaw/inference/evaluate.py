"""Evaluate a trained network on labeled images: the metrics of its run, with intervals, per class and per bin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thaw.config.errors import Problem, UserError, format_names
from thaw.config.schema import Recipe
from thaw.data.augmentation import build_augmentation
from thaw.data.batches import SequentialBatchSampler
from thaw.data.factory import load_samples
from thaw.data.image_store import MAX_LISTED_IMAGES
from thaw.data.samples import SPLITS, Samples, limit_per_class
from thaw.features.cache import find_cached_features
from thaw.features.cache_key import build_feature_spec
from thaw.features.views import EVALUATION_VIEW, build_views
from thaw.inference.load import Classifier
from thaw.inference.predict import iter_predictions
from thaw.metrics.calibration import Reliability, compute_ece_interval, compute_reliability
from thaw.metrics.classification import classification_metrics, confusion_matrix
from thaw.metrics.per_class import ClassMetrics, compute_class_metrics, compute_macro_f1_interval

ALL_SPLITS = "all"


@dataclass(frozen=True)
class Evaluation:
    """The logits of labeled images.

    `positions` [n] are indices of `samples`, `logits` is float32 [n, classes]. `skipped` is path -> the reason, for
    images that cannot be decoded.
    """

    samples: Samples
    positions: np.ndarray
    logits: Tensor
    skipped: dict[str, str]

    @property
    def labels(self) -> Tensor:
        """The labels, int64 [n]."""
        return torch.from_numpy(self.samples.get_labels()[self.positions])

    @property
    def confusion(self) -> np.ndarray:
        """The confusion matrix, int64 [classes, classes]; rows are labels, columns predictions."""
        matrix: np.ndarray = confusion_matrix(self.logits.argmax(1), self.labels, len(self.samples.classes)).numpy()
        return matrix

    def compute_metrics(self) -> dict[str, Any]:
        """Compute the metrics of a run's metrics.json, and bootstrap intervals of macro F1 and calibration error."""
        metrics = classification_metrics(self.logits, self.labels)
        intervals = {
            "macro_f1_ci95": compute_macro_f1_interval(self.confusion),
            "ece_ci95": compute_ece_interval(*self._compute_confidence()),
        }
        return metrics | {name: list(interval) for name, interval in intervals.items()}

    def compute_class_metrics(self) -> list[ClassMetrics]:
        """Compute recall, precision and F1 of each class."""
        return compute_class_metrics(self.confusion, self.samples.classes)

    def compute_reliability(self) -> Reliability:
        """Compute accuracy and confidence per bin of probability."""
        return compute_reliability(*self._compute_confidence())

    def _compute_confidence(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the probability of each prediction, and whether it is correct."""
        correct: np.ndarray = (self.logits.argmax(1) == self.labels).numpy()
        return self.logits.double().softmax(1).max(1).values.numpy(), correct


def evaluate_splits(classifier: Classifier, recipe: Recipe, splits: Sequence[str]) -> dict[str, Evaluation]:
    """Evaluate a network on those of `splits` that the data set of `recipe` has; `all` are all images.

    Raises:
        UserError: where the data cannot be loaded, has other classes than the network, or has none of the splits.
    """
    samples = load_samples(recipe)
    if recipe.data.train_per_class:
        samples = limit_per_class(samples, recipe.data.train_per_class, recipe.seed)
    _check_classes(samples, classifier.classes)
    positions_by_split = {split: _select_positions(samples, split) for split in splits}
    positions_by_split = {split: positions for split, positions in positions_by_split.items() if len(positions)}
    if not positions_by_split:
        counts = ", ".join(f"{count} {split}" for split, count in samples.count_per_split().items())
        problem = Problem(f"split={format_names(splits)}", counts, fix=f"split={ALL_SPLITS}")
        raise UserError("nothing to evaluate.", [problem])
    return {
        split: _evaluate_split(classifier, recipe, samples, positions)
        for split, positions in positions_by_split.items()
    }


def _select_positions(samples: Samples, split: str) -> np.ndarray:
    if split == ALL_SPLITS:
        return np.concatenate([samples.get_positions(name) for name in SPLITS])
    return samples.get_positions(split)


def _check_classes(samples: Samples, classes: Sequence[str]) -> None:
    if samples.classes == tuple(classes):
        return
    missing, unknown = (
        sorted(names) for names in (set(classes) - set(samples.classes), set(samples.classes) - set(classes))
    )
    got = f"{len(samples.classes)} classes; unknown to the network: {format_names(unknown, 8) or 'none'}"
    valid = f"the network's {len(classes)}; not in the data set: {format_names(missing, 8) or 'none'}"
    problem = Problem(str(samples.root), got, valid, "dataset=NAME, or dataset.root=DIR, of data of these classes")
    raise UserError("the data set has other classes than the network.", [problem])


def _evaluate_split(classifier: Classifier, recipe: Recipe, samples: Samples, positions: np.ndarray) -> Evaluation:
    cached_logits = _compute_cached_logits(classifier, recipe, samples, positions)
    if cached_logits is not None:
        return Evaluation(samples, positions, cached_logits, {})
    paths = [samples.root / samples.samples[position].path for position in positions]
    logits, decoded_indices, skipped = list[Tensor](), list[int](), dict[str, str]()
    for raw_prediction in iter_predictions(classifier, paths, recipe.trainer.batch_size):
        if raw_prediction.logits is None:
            skipped[samples.samples[positions[raw_prediction.index]].path] = raw_prediction.error
        else:
            logits.append(raw_prediction.logits)
            decoded_indices.append(raw_prediction.index)
    _check_broken(samples.root, skipped, recipe.data.broken == "skip" and bool(decoded_indices))
    return Evaluation(samples, positions[decoded_indices], torch.cat(logits), skipped)


def _check_broken(root: Path, skipped: dict[str, str], can_skip: bool) -> None:
    if skipped and not can_skip:
        problems = [Problem(f"{path}: {reason}") for path, reason in islice(skipped.items(), MAX_LISTED_IMAGES)]
        headline = f"{len(skipped)} images under {root} cannot be decoded; data.broken=skip leaves them out."
        raise UserError(headline, problems)


def _compute_cached_logits(
    classifier: Classifier, recipe: Recipe, samples: Samples, positions: np.ndarray
) -> Tensor | None:
    """Compute the logits from the run's cached features, the deepest that the cache still has; None without any.

    The run's metrics come from these features; computing them again would round differently.
    """
    if recipe.feature_cache.mode == "off" or recipe.trainer.test_time_augmentation != "none":
        return None
    views = build_views(samples, build_augmentation(recipe.augment), recipe.seed, recipe.feature_cache.views)
    if (views.rows[EVALUATION_VIEW, positions] < 0).any():
        return None
    spec = build_feature_spec(recipe.backbone, classifier.preprocessing, classifier.precision, views)
    depths, labels = classifier.cached_depths[::-1], samples.get_labels()
    features = find_cached_features(recipe, spec, classifier.network, depths, labels, classifier.device)
    if features is None:
        return None
    batches = SequentialBatchSampler(positions, recipe.trainer.batch_size).iter_positions()
    return torch.cat(
        [classifier.compute_logits(features.get_evaluation_features(batch), features.depth) for batch in batches]
    )
