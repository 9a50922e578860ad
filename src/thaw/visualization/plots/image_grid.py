"""Save images in a grid or as strips, each with a line of text.

Pillow draws them: 32 axes of matplotlib take two seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from thaw.visualization.plots.encode import PNG_OPTIONS
from thaw.visualization.plots.text import clean_name, find_font

CELL_SIDE, LINE_HEIGHT, GAP = 176, 22, 10  # pixels
COLUMNS = 8
FONT_SIZE = 13
BLACK, GRAY, RED, ORANGE = "#000000", "#6b7680", "#c22020", "#a65e00"
LOW_CONFIDENCE = 0.5  # below it, all other classes together are more probable than the prediction
# Text colors keep their full resolution. 32 photographs take 0.005 s and 0.4 MB, as PNG 0.09 s and 2 MB.
JPEG_OPTIONS = {"quality": 90, "subsampling": 0}


@dataclass(frozen=True)
class Caption:
    """The text above an image of a grid.

    Attributes:
        text: classes and probabilities.
        name: the name of the image's file; empty for none.
        is_wrong: whether the prediction is wrong: red, with a cross.
        is_uncertain: whether the probability is below LOW_CONFIDENCE: orange, with a question mark.
    """

    text: str
    name: str = ""
    is_wrong: bool = False
    is_uncertain: bool = False

    def format_text(self) -> str:
        """Return the text with its mark, so that nobody needs the color."""
        return ("\u2717 " if self.is_wrong else "? " if self.is_uncertain else "") + self.text

    @property
    def color(self) -> str:
        """The color of the text."""
        return RED if self.is_wrong else ORANGE if self.is_uncertain else BLACK


def build_captions(
    logits: Tensor, labels: Iterable[int], paths: Iterable[str], classes: Sequence[str]
) -> list[Caption]:
    """Return a caption for each row of `logits` [n, classes]: label, prediction if it is wrong, its probability, and
    the file's name."""
    top, result = logits.softmax(1).max(1), list[Caption]()
    rows = zip(labels, top.indices.tolist(), top.values.tolist(), paths, strict=True)
    for label, prediction, probability, path in rows:
        text = classes[label] if label == prediction else f"{classes[label]}, not {classes[prediction]}"
        name = PurePosixPath(path).name
        result.append(Caption(f"{text} {probability:.2f}", name, label != prediction, probability < LOW_CONFIDENCE))
    return result


def save_image_grid(images: np.ndarray, captions: Sequence[Caption], file: Path) -> None:
    """Save uint8 [n, height, width, 3] in a grid, in the format of `file`'s suffix.

    Captions are shortened where they are too long: texts at their end, names of files in their middle.
    """
    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    text_height = LINE_HEIGHT * (2 if any(caption.name for caption in captions) else 1)
    cell_width, cell_height = CELL_SIDE + GAP, text_height + CELL_SIDE + GAP
    canvas = Image.new("RGB", (GAP + columns * cell_width, GAP + rows * cell_height), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        left, top = GAP + index % columns * cell_width, GAP + index // columns * cell_height
        _draw_line(draw, (left, top), caption.format_text(), caption.color)
        if caption.name:
            _draw_line(draw, (left, top + LINE_HEIGHT), caption.name, GRAY, keeps_end=True)
        resized_image = Image.fromarray(image).resize((CELL_SIDE, CELL_SIDE), Image.Resampling.BILINEAR)
        canvas.paste(resized_image, (left, top + text_height))
    options: dict[str, Any] = JPEG_OPTIONS if file.suffix == ".jpg" else PNG_OPTIONS
    canvas.save(file, **options)


def save_image_strips(strips: Sequence[tuple[str, np.ndarray]], file: Path) -> None:
    """Save strips from top to bottom, each a line of text above a uint8 [height, width, 3] image."""
    width = max(image.shape[1] for _, image in strips)
    height = sum(LINE_HEIGHT + image.shape[0] + GAP for _, image in strips)
    canvas = Image.new("RGB", (width + 2 * GAP, height + GAP), "white")
    draw, top = ImageDraw.Draw(canvas), GAP
    for label, image in strips:
        _draw_line(draw, (GAP, top), label, BLACK, max_width=width)
        canvas.paste(Image.fromarray(image), (GAP, top + LINE_HEIGHT))
        top += LINE_HEIGHT + image.shape[0] + GAP
    canvas.save(file)


def _draw_line(
    draw: ImageDraw.ImageDraw,
    position: tuple[int, int],
    text: str,
    color: str,
    max_width: int = CELL_SIDE,
    keeps_end: bool = False,
) -> None:
    text = clean_name(text)
    font = _load_font(find_font(text))
    draw.text(position, _truncate_text(text, font, max_width, keeps_end), font=font, fill=color)


@cache
def _load_font(path: Path) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, FONT_SIZE)


def _truncate_text(text: str, font: ImageFont.FreeTypeFont, max_width: int, keeps_end: bool) -> str:
    """Shorten `text` to `max_width` pixels, with an ellipsis at its end or in its middle."""
    if font.getlength(text) <= max_width:
        return text
    for length in range(len(text) - 1, 0, -1):
        num_end = length // 2 if keeps_end else 0
        shortened_text = f"{text[: length - num_end]}…{text[len(text) - num_end :]}"
        if font.getlength(shortened_text) <= max_width:
            return shortened_text
    return "…"
