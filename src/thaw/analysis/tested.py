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


@dataclass(frozen=True)
class ClassRow:
    """Shares from 0 to 1. `precision` and `f1` are None where nothing was taken for the class, or it does not occur."""

    name: str
    count: int
    recall: float | None
    precision: float | None
    f1: float | None


def class_rows(confusion: np.ndarray, classes: Sequence[str]) -> list[ClassRow]:
    hits, labelled, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    return [
        ClassRow(name, int(n), _share(hit, n), _share(hit, m), _share(2 * hit, n + m))
        for name, hit, n, m in zip(classes, hits, labelled, predicted, strict=True)
    ]


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def confused_pairs(confusion: np.ndarray, classes: Sequence[str], most: int) -> list[tuple[str, str, int, float]]:
    """Label, what it was taken for, how often, and which share of the label's images; the most often first."""
    wrong = confusion - np.diag(confusion.diagonal())
    order = np.argsort(-wrong, axis=None, kind="stable")[:most]
    places = [divmod(int(one), len(classes)) for one in order]
    totals = confusion.sum(1)
    return [
        (classes[row], classes[column], int(wrong[row, column]), float(wrong[row, column] / totals[row]))
        for row, column in places
        if wrong[row, column]
    ]
