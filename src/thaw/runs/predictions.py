"""The rows of `predictions.csv`, one a test image. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thaw.system.csv_files import format_rows

if TYPE_CHECKING:
    from torch import Tensor

    from thaw.data.samples import Samples


def format_predictions(samples: Samples, logits: Tensor, positions: Tensor) -> str:
    """Return CSV with path, label, prediction and probability for logits [n, classes] of the samples at `positions`
    [n], and with the group if the data set has groups."""
    group_column = ["group"] if samples.has_groups else []
    rows = [["path", "label", "prediction", "probability", *group_column]]
    probabilities, predictions = logits.softmax(1).max(1)
    for position, prediction, probability in zip(
        positions.tolist(), predictions.tolist(), probabilities.tolist(), strict=True
    ):
        sample = samples.samples[position]
        row = [sample.path, samples.classes[sample.label], samples.classes[prediction], f"{probability:.6f}"]
        rows.append([*row, *([sample.group or ""] if group_column else [])])
    return format_rows(rows)


@dataclass(frozen=True)
class TestPredictions:
    """Predictions of n test images: `labels` and `predictions` int64 [n] are indices into `classes`, `probabilities`
    float64 [n] are those of the predicted classes."""

    __test__ = False  # pytest would collect a class of this name

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """Which predictions are correct, bool [n]."""
        is_correct: np.ndarray = self.labels == self.predictions
        return is_correct

    def compute_confusion_matrix(self) -> np.ndarray:
        """Return int64 [classes, classes]: the row is the label, the column the prediction."""
        num_classes = len(self.classes)
        return np.bincount(self.labels * num_classes + self.predictions, minlength=num_classes**2).reshape(
            num_classes, num_classes
        )

    def most_confident(self, mask: np.ndarray, max_count: int) -> list[int]:
        """Return the indices of at most `max_count` images in `mask`, bool [n], highest probability first."""
        indices = np.flatnonzero(mask)
        order = np.argsort(-self.probabilities[indices], kind="stable")
        return [int(index) for index in indices[order][:max_count]]

    def least_confident(self, mask: np.ndarray, max_count: int) -> list[int]:
        """Return the indices of at most `max_count` images in `mask`, bool [n], lowest probability first."""
        indices = np.flatnonzero(mask)
        order = np.argsort(self.probabilities[indices], kind="stable")
        return [int(index) for index in indices[order][:max_count]]


def parse_predictions(rows: Sequence[Mapping[str, str]], classes: Sequence[str]) -> TestPredictions:
    """Return the rows of a `predictions.csv` as arrays, with labels as indices into `classes`."""
    class_indices = {name: index for index, name in enumerate(classes)}
    labels, predictions = (
        np.array([class_indices[row[key]] for row in rows], dtype=np.int64) for key in ("label", "prediction")
    )
    probabilities = np.array([float(row["probability"]) for row in rows])
    return TestPredictions(tuple(classes), tuple(row["path"] for row in rows), labels, predictions, probabilities)
