"""Captchas, read character by character."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from PIL import Image

from thaw.analysis.metrics import wilson
from thaw.config.faults import Fault, UserFault, listing
from thaw.trained.prediction import Answer, Trained, answers

LABELS = "labels.csv"  # columns file and text, beside the captchas
Interval = tuple[float, float]


@dataclass(frozen=True)
class Reading:
    """`text` with the probability of each character; empty where the image is broken: `broken` says why."""

    path: Path
    text: str
    probabilities: tuple[float, ...]
    broken: str = ""

    @property
    def probability(self) -> float:
        """Of the whole string: the characters are read independently of each other."""
        product = 1.0 if self.probabilities else 0.0
        for one in self.probabilities:
            product *= one
        return product


@dataclass(frozen=True)
class Score:
    """Of `count` captchas: the share read entirely right, and that of single characters, with 95 % intervals. A
    character that is missing or too many is wrong."""

    count: int
    strings: float
    strings_ci95: Interval
    characters: float
    characters_ci95: Interval
    length: float

    @property
    def expected(self) -> float:
        """The share of strings that independent characters would give."""
        return float(self.characters**self.length)


def readings(trained: Trained, paths: Sequence[Path], characters: int | None = None) -> Iterator[Reading]:
    """One for each of `paths`, in their order. An image is cut into so many `characters` of equal width, by default as
    many squares as lie side by side in it.

    Raises:
        UserFault: where the network's classes are no single characters.
    """
    if longer := [name for name in trained.classes if len(name) != 1]:
        got = f"{len(trained.classes)} classes: {listing(longer, 5)}"
        fault = Fault("--captcha", got, "a network whose classes are single characters", "train.py dataset=captcha")
        raise UserFault("these classes are no characters.", [fault])
    for answer in answers(trained, paths, pieces=lambda whole: cut(whole, characters)):
        yield _reading(answer, trained.classes, paths[answer.number])


def cut(image: Image.Image, characters: int | None = None) -> list[Image.Image]:
    """Pieces of equal width, left to right."""
    width, height = image.size
    count = min(characters or max(1, round(width / height)), width)
    edges = [round(place * width / count) for place in range(count + 1)]
    return [image.crop((left, 0, right, height)) for left, right in pairwise(edges)]


def _reading(answer: Answer, classes: Sequence[str], path: Path) -> Reading:
    if answer.logits is None:
        return Reading(path, "", (), answer.broken)
    best = answer.logits.softmax(1).max(1)
    return Reading(path, "".join(classes[index] for index in best.indices.tolist()), tuple(best.values.tolist()))


def labels_beside(paths: Sequence[Path]) -> dict[Path, str]:
    """What labels.csv in the folders of `paths` says of them.

    Raises:
        UserFault: where it lacks a column, file or text.
    """
    found: dict[Path, str] = {}
    for file in sorted({path.parent / LABELS for path in paths}):
        if file.is_file():
            with file.open(newline="", encoding="utf-8") as stream:
                rows = csv.DictReader(stream)
                if not {"file", "text"} <= set(rows.fieldnames or ()):
                    got = f"columns {listing(rows.fieldnames or ()) or 'none'}"
                    raise UserFault("the captchas' labels cannot be read.", [Fault(str(file), got, "file,text")])
                found |= {file.parent / row["file"]: row["text"] for row in rows}
    return found


def score(found: Sequence[Reading], labels: Mapping[Path, str]) -> Score | None:
    """None where no reading has a label. Broken captchas are wrong."""
    pairs = [(one.text, labels[one.path]) for one in found if one.path in labels]
    if not pairs:
        return None
    right = sum(text == label for text, label in pairs)
    places = sum(max(len(text), len(label)) for text, label in pairs)
    hits = sum(one == other for text, label in pairs for one, other in zip(text, label, strict=False))
    length = sum(len(label) for _, label in pairs) / len(pairs)
    count = len(pairs)
    return Score(count, right / count, wilson(right, count), hits / places, wilson(hits, places), length)
