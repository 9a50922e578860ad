"""Save images in a grid or as strips, each with a line of text.

Pillow draws them: 32 axes of matplotlib take two seconds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from thaw.visualization.plots.encode import PNG_OPTIONS

CELL_SIDE, LINE_HEIGHT, GAP = 176, 22, 10  # pixels
COLUMNS = 8
BLACK, RED = "#000000", "#c22020"
# Text colors keep their full resolution. 32 photographs take 0.005 s and 0.4 MB, as PNG 0.09 s and 2 MB.
JPEG_OPTIONS = {"quality": 90, "subsampling": 0}


def save_image_grid(images: np.ndarray, captions: Sequence[str], wrong_flags: Sequence[bool], file: Path) -> None:
    """Save uint8 [n, height, width, 3] in a grid, in the format of `file`'s suffix.

    Captions are cut where they are too long; those of images with a wrong prediction are red.
    """
    columns = min(COLUMNS, len(images))
    rows = math.ceil(len(images) / columns)
    cell_width, cell_height = CELL_SIDE + GAP, LINE_HEIGHT + CELL_SIDE + GAP
    canvas = Image.new("RGB", (GAP + columns * cell_width, GAP + rows * cell_height), "white")
    draw, font = ImageDraw.Draw(canvas), ImageFont.truetype(_get_font_path(), 13)
    for index, (image, caption, is_wrong) in enumerate(zip(images, captions, wrong_flags, strict=True)):
        left, top = GAP + index % columns * cell_width, GAP + index // columns * cell_height
        draw.text((left, top), _truncate_text(caption, font), font=font, fill=RED if is_wrong else BLACK)
        resized_image = Image.fromarray(image).resize((CELL_SIDE, CELL_SIDE), Image.Resampling.BILINEAR)
        canvas.paste(resized_image, (left, top + LINE_HEIGHT))
    options: dict[str, Any] = JPEG_OPTIONS if file.suffix == ".jpg" else PNG_OPTIONS
    canvas.save(file, **options)


def save_image_strips(strips: Sequence[tuple[str, np.ndarray]], file: Path) -> None:
    """Save strips from top to bottom, each a line of text above a uint8 [height, width, 3] image."""
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
