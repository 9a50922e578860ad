"""Pixels and diagrams as the content of image files: JPEG for photographs, PNG for diagrams."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

PNG_OPTIONS = {"compress_level": 1}  # Pillow's arguments for PNG; white paper shrinks all the same, in half the time


def encode_jpeg(pixels: np.ndarray, max_side: int | None = None) -> bytes:
    """Of uint8 [height, width, 3], at most `most` pixels wide and high."""
    image = Image.fromarray(pixels)
    if max_side:
        image.thumbnail((max_side, max_side))
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def encode_png(figure: Figure, dpi: int = 160) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, pil_kwargs=PNG_OPTIONS)
    return stream.getvalue()
