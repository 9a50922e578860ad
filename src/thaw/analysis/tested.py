"""`predictions.csv` -> what the test images tell, class by class and picture by picture."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Tested:
    """By test image: `paths`, `labels` and `guesses` int64 [n] into `classes`, `probabilities` float64 [n] of the
    guesses."""

    classes: tuple[str, ...]
    paths: tuple[str, ...]
    labels: np.ndarray
    guesses: np.ndarray
    probabilities: np.ndarray

    @property
    def right(self) -> np.ndarray:
        """bool [n]."""
        truth: np.ndarray = self.labels == self.guesses
        return truth

    def confusion(self) -> np.ndarray:
        """int64 [classes, classes]: row the label, column the prediction."""
        count = len(self.classes)
        return np.bincount(self.labels * count + self.guesses, minlength=count**2).reshape(count, count)

    def surest(self, of: np.ndarray, most: int) -> list[int]:
        """Places of at most `most` of those that the mask `of` means, the highest probability first."""
        places = np.flatnonzero(of)
        order = np.argsort(-self.probabilities[places], kind="stable")
        return [int(place) for place in places[order][:most]]

    def least_sure(self, of: np.ndarray, most: int) -> list[int]:
        places = np.flatnonzero(of)
        order = np.argsort(self.probabilities[places], kind="stable")
        return [int(place) for place in places[order][:most]]


def read_tested(file: Path, classes: Sequence[str]) -> Tested:
    with file.open(newline="", encoding="utf-8", errors="surrogateescape") as stream:
        rows = list(csv.DictReader(stream))
    number = {name: place for place, name in enumerate(classes)}
    labels, guesses = (np.array([number[row[key]] for row in rows], dtype=np.int64) for key in ("label", "prediction"))
    probabilities = np.array([float(row["probability"]) for row in rows])
    return Tested(tuple(classes), tuple(row["path"] for row in rows), labels, guesses, probabilities)
