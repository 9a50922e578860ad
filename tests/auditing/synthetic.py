"""Features of images that were never there: classes, groups within them, and noise."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from thaw.auditing.neighbors import Neighbors, find_neighbors
from thaw.auditing.out_of_fold import OutOfFold, predict_out_of_fold, project_features


@dataclass(frozen=True)
class SyntheticData:
    """Features and what the checks compute from them."""

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray

    @property
    def singles(self) -> np.ndarray:
        """Every image as a group of its own."""
        return np.arange(len(self.labels))

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Label and group of each image."""
        return list(zip(self.labels.tolist(), self.groups.tolist(), strict=True))

    @cached_property
    def projected(self) -> np.ndarray:
        return project_features(self.features)

    @cached_property
    def neighbors(self) -> Neighbors:
        return find_neighbors(self.features)

    def predict(self, labels: np.ndarray | None = None, groups: np.ndarray | None = None) -> OutOfFold:
        """Predict `labels`, by default the true ones, out of fold."""
        labels = self.labels if labels is None else labels
        groups = self.singles if groups is None else groups
        return predict_out_of_fold(self.projected, self.neighbors, labels, groups)


def make_data(
    num_images: int = 200, num_classes: int = 4, group_size: int = 1, group_scale: float = 0.0, class_scale: float = 2.0
) -> SyntheticData:
    """Make features, float32 [images, 24]; all images of a group are of one class."""
    rng = np.random.default_rng(0)
    labels = np.arange(num_images) // group_size % num_classes
    groups = np.arange(num_images) // group_size
    centers = rng.normal(0, class_scale, (num_classes, 24))
    group_centers = rng.normal(0, group_scale, (num_images, 24))
    features = centers[labels] + group_centers[groups] + rng.normal(0, 1, (num_images, 24)) + 4
    return SyntheticData(features.astype(np.float32), labels.astype(np.int64), groups.astype(np.int64))
