"""Pictures side by side, each with a line of text. Drawn by Pillow: 32 axes of matplotlib take two seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from thaw.analysis.encoded import DIAGRAMS

SIDE, LINE, GAP, COLUMNS = 176, 22, 10, 8  # pixels, but for the columns
BLACK, RED = "#000000", "#c22020"
# JPEG, the letters' colours at full resolution. 32 photographs take 0.005 s and 0.4 MB, as PNG 0.09 s and 2 MB.
LETTERED = {"quality": 90, "subsampling": 0}


def save_samples(images: np.ndarray, titles: Sequence[str], wrong: Sequence[bool], file: Path) -> None:
    """A grid of uint8 [n, height, width, 3], as JPEG or what else `file` ends with; titles of `wrong` ones in red, cut
    where they are too long."""
    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    sheet = Image.new("RGB", (GAP + columns * (SIDE + GAP), GAP + rows * (LINE + SIDE + GAP)), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.truetype(_font(), 13)
    for number, (image, title, is_wrong) in enumerate(zip(images, titles, wrong, strict=True)):
        left, top = GAP + number % columns * (SIDE + GAP), GAP + number // columns * (LINE + SIDE + GAP)
        pen.text((left, top), _cut(title, font), font=font, fill=RED if is_wrong else BLACK)
        sheet.paste(Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR), (left, top + LINE))
    how: dict[str, Any] = LETTERED if file.suffix == ".jpg" else DIAGRAMS
    sheet.save(file, **how)


def save_strips(strips: Sequence[tuple[str, np.ndarray]], file: Path) -> None:
    """One below the other, a line of text and a uint8 [height, width, 3] picture each."""
    width = max(picture.shape[1] for _, picture in strips)
    height = sum(LINE + picture.shape[0] + GAP for _, picture in strips)
    canvas = Image.new("RGB", (width + 2 * GAP, height + GAP), "white")
    pen, font, top = ImageDraw.Draw(canvas), ImageFont.truetype(_font(), 13), GAP
    for label, picture in strips:
        pen.text((GAP, top), label, font=font, fill=BLACK)
        canvas.paste(Image.fromarray(picture), (GAP, top + LINE))
        top += LINE + picture.shape[0] + GAP
    canvas.save(file)


def _font() -> Path:
    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def _cut(text: str, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= SIDE:
        return text
    while text and font.getlength(f"{text}…") > SIDE:
        text = text[:-1]
    return f"{text}…"
