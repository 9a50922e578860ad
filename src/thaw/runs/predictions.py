"""`predictions.csv`, apart from what it takes to train: evaluating writes one too."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import Tensor

from thaw.data.samples import Samples
from thaw.system.files import write_text


def write_predictions(file: Path, samples: Samples, logits: Tensor, positions: Tensor) -> None:
    """Path, label, prediction and its probability for each of logits [n, classes], of samples at `positions` [n]."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "prediction", "probability"])
    probabilities, predictions = logits.softmax(1).max(1)
    for position, prediction, probability in zip(
        positions.tolist(), predictions.tolist(), probabilities.tolist(), strict=True
    ):
        sample = samples.samples[position]
        writer.writerow([sample.path, samples.classes[sample.label], samples.classes[prediction], f"{probability:.6f}"])
    write_text(file, buffer.getvalue())


@dataclass(frozen=True)
class TestPredictions:
    """By test image: `paths`, `labels` and `guesses` int64 [n] into `classes`, `probabilities` float64 [n] of the
    guesses."""

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray

    @property
    def correct(self) -> np.ndarray:
        """bool [n]."""
        is_correct: np.ndarray = self.labels == self.predictions
        return is_correct

    def compute_confusion_matrix(self) -> np.ndarray:
        """int64 [classes, classes]: row the label, column the prediction."""
        num_classes = len(self.classes)
        return np.bincount(self.labels * num_classes + self.predictions, minlength=num_classes**2).reshape(
            num_classes, num_classes
        )

    def most_confident(self, mask: np.ndarray, max_count: int) -> list[int]:
        """Places of at most `most` of those that the mask `of` means, the highest probability first."""
        indices = np.flatnonzero(mask)
        order = np.argsort(-self.probabilities[indices], kind="stable")
        return [int(index) for index in indices[order][:max_count]]

    def least_confident(self, mask: np.ndarray, max_count: int) -> list[int]:
        indices = np.flatnonzero(mask)
        order = np.argsort(self.probabilities[indices], kind="stable")
        return [int(index) for index in indices[order][:max_count]]


def read_test_predictions(file: Path, classes: Sequence[str]) -> TestPredictions:
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = list(csv.DictReader(stream))
    class_indices = {name: index for index, name in enumerate(classes)}
    labels, predictions = (
        np.array([class_indices[row[key]] for row in rows], dtype=np.int64) for key in ("label", "prediction")
    )
    probabilities = np.array([float(row["probability"]) for row in rows])
    return TestPredictions(tuple(classes), tuple(row["path"] for row in rows), labels, predictions, probabilities)
