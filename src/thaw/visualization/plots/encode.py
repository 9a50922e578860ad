"""Encode images as JPEG and plots as PNG, and save plots."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from thaw.visualization.plots.text import select_font_families

PNG_OPTIONS = {"compress_level": 1}  # Pillow's arguments for PNG; plots become nearly as small in half the time


def encode_jpeg(pixels: np.ndarray, max_side: int | None = None) -> bytes:
    """Encode uint8 [height, width, 3] as JPEG, at most `max_side` pixels wide and high."""
    image = Image.fromarray(pixels)
    if max_side:
        image.thumbnail((max_side, max_side))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def encode_png(figure: Figure, dpi: int = 160) -> bytes:
    """Encode a figure as PNG."""
    select_font_families(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, pil_kwargs=PNG_OPTIONS)
    return stream.getvalue()


def save_figure(figure: Figure, file: Path) -> None:
    """Save a figure as the PNG `file`."""
    file.write_bytes(encode_png(figure, dpi=110))
