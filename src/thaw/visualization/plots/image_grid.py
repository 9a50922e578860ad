"""Pictures side by side, each with a line of text. Drawn by Pillow: 32 axes of matplotlib take two seconds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from thaw.visualization.plots.encode import PNG_OPTIONS

CELL_SIDE, LINE_HEIGHT, GAP, COLUMNS = 176, 22, 10, 8  # pixels, but for the columns
BLACK, RED = "#000000", "#c22020"
# JPEG, the letters' colours at full resolution. 32 photographs take 0.005 s and 0.4 MB, as PNG 0.09 s and 2 MB.
JPEG_OPTIONS = {"quality": 90, "subsampling": 0}


def save_image_grid(images: np.ndarray, captions: Sequence[str], wrong_flags: Sequence[bool], file: Path) -> None:
    """A grid of uint8 [n, height, width, 3], as JPEG or what else `file` ends with; titles of `wrong` ones in red, cut
    where they are too long."""
    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    canvas = Image.new(
        "RGB", (GAP + columns * (CELL_SIDE + GAP), GAP + rows * (LINE_HEIGHT + CELL_SIDE + GAP)), "white"
    )
    draw, font = ImageDraw.Draw(canvas), ImageFont.truetype(_get_font_path(), 13)
    for index, (image, caption, is_wrong) in enumerate(zip(images, captions, wrong_flags, strict=True)):
        left, top = GAP + index % columns * (CELL_SIDE + GAP), GAP + index // columns * (LINE_HEIGHT + CELL_SIDE + GAP)
        draw.text((left, top), _truncate_text(caption, font), font=font, fill=RED if is_wrong else BLACK)
        canvas.paste(
            Image.fromarray(image).resize((CELL_SIDE, CELL_SIDE), Image.Resampling.BILINEAR), (left, top + LINE_HEIGHT)
        )
    options: dict[str, Any] = JPEG_OPTIONS if file.suffix == ".jpg" else PNG_OPTIONS
    canvas.save(file, **options)


def save_image_strips(strips: Sequence[tuple[str, np.ndarray]], file: Path) -> None:
    """One below the other, a line of text and a uint8 [height, width, 3] picture each."""
    width = max(image.shape[1] for _, image in strips)
    height = sum(LINE_HEIGHT + image.shape[0] + GAP for _, image in strips)
    canvas = Image.new("RGB", (width + 2 * GAP, height + GAP), "white")
    draw, font, top = ImageDraw.Draw(canvas), ImageFont.truetype(_get_font_path(), 13), GAP
    for label, image in strips:
        draw.text((GAP, top), label, font=font, fill=BLACK)
        canvas.paste(Image.fromarray(image), (GAP, top + LINE_HEIGHT))
        top += LINE_HEIGHT + image.shape[0] + GAP
    canvas.save(file)


def _get_font_path() -> Path:
    return Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")


def _truncate_text(text: str, font: ImageFont.FreeTypeFont) -> str:
    if font.getlength(text) <= CELL_SIDE:
        return text
    while text and font.getlength(f"{text}…") > CELL_SIDE:
        text = text[:-1]
    return f"{text}…"
