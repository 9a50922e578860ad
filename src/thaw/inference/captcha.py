"""Read captchas character by character."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from PIL import Image

from thaw.config.errors import Problem, UserError, format_names
from thaw.inference.predict import Predictor, RawPrediction, iter_predictions
from thaw.metrics.per_class import wilson_interval
from thaw.system.csv_files import read_rows

LABELS_FILE = "labels.csv"  # columns file and text, in the folder of the captchas
Interval = tuple[float, float]


@dataclass(frozen=True)
class CaptchaReading:
    """The text of a captcha with the probability of each character.

    `text` is empty where the image cannot be decoded, for the reason in `error`.
    """

    path: Path
    text: str
    probabilities: tuple[float, ...]
    error: str = ""

    @property
    def probability(self) -> float:
        """The probability of the whole string: the product, as characters are read independently of each other."""
        return math.prod(self.probabilities) if self.probabilities else 0.0


@dataclass(frozen=True)
class CaptchaScore:
    """The fractions of `count` captchas and of their characters that were read correctly, with 95 % intervals.

    A missing or additional character is an error.
    """

    count: int
    string_accuracy: float
    string_accuracy_ci95: Interval
    character_accuracy: float
    character_accuracy_ci95: Interval
    mean_length: float

    @property
    def expected_string_accuracy(self) -> float:
        """The fraction of correct strings that independent characters would give."""
        return float(self.character_accuracy**self.mean_length)


def read_captchas(
    classifier: Predictor, paths: Sequence[Path], characters: int | None = None
) -> Iterator[CaptchaReading]:
    """Read each of `paths`, in their order.

    An image is split into `characters` pieces of equal width, by default into as many squares as it is wide.

    Raises:
        UserError: where the network's classes are not single characters.
    """
    if invalid_classes := [name for name in classifier.classes if len(name) != 1]:
        got = f"{len(classifier.classes)} classes: {format_names(invalid_classes, 5)}"
        problem = Problem("--captcha", got, "a network whose classes are single characters", "train.py dataset=captcha")
        raise UserError("these classes are not characters.", [problem])

    def split_image(image: Image.Image) -> list[Image.Image]:
        return crop_characters(image, characters)

    for raw_prediction in iter_predictions(classifier, paths, split_image=split_image):
        yield _build_reading(raw_prediction, classifier.classes, paths[raw_prediction.index])


def crop_characters(image: Image.Image, characters: int | None = None) -> list[Image.Image]:
    """Crop pieces of equal width, left to right."""
    width, height = image.size
    count = min(characters or max(1, round(width / height)), width)
    edges = [round(index * width / count) for index in range(count + 1)]
    return [image.crop((left, 0, right, height)) for left, right in pairwise(edges)]


def _build_reading(raw_prediction: RawPrediction, classes: Sequence[str], path: Path) -> CaptchaReading:
    if raw_prediction.logits is None:
        return CaptchaReading(path, "", (), raw_prediction.error)
    best = raw_prediction.logits.softmax(1).max(1)
    return CaptchaReading(path, "".join(classes[index] for index in best.indices.tolist()), tuple(best.values.tolist()))


def read_labels(paths: Sequence[Path]) -> dict[Path, str]:
    """Read the texts of captchas from labels.csv in the folders of `paths`.

    Raises:
        UserError: where the column file or text is missing.
    """
    labels: dict[Path, str] = {}
    for file in sorted({path.parent / LABELS_FILE for path in paths}):
        if file.is_file():
            with file.open(newline="", encoding="utf-8") as stream:
                rows = read_rows(stream)
                columns = list(rows[0]) if rows else []
                if not {"file", "text"} <= set(columns):
                    got = f"columns {format_names(columns) or 'none'}"
                    raise UserError("the captchas' labels cannot be read.", [Problem(str(file), got, "file,text")])
                labels |= {file.parent / row["file"]: row["text"] for row in rows}
    return labels


def score_readings(readings: Sequence[CaptchaReading], labels: Mapping[Path, str]) -> CaptchaScore | None:
    """Compare readings with their labels; return None where none has a label. Captchas that are no image are wrong."""
    pairs = [(predicted.text, labels[predicted.path]) for predicted in readings if predicted.path in labels]
    if not pairs:
        return None
    num_correct = sum(text == label for text, label in pairs)
    num_positions = sum(max(len(text), len(label)) for text, label in pairs)
    num_hits = sum(predicted == actual for text, label in pairs for predicted, actual in zip(text, label, strict=False))
    mean_length = sum(len(label) for _, label in pairs) / len(pairs)
    count = len(pairs)
    return CaptchaScore(
        count,
        num_correct / count,
        wilson_interval(num_correct, count),
        num_hits / num_positions,
        wilson_interval(num_hits, num_positions),
        mean_length,
    )
