"""Pixels and diagrams as the content of image files: JPEG for photographs, PNG for diagrams."""

from __future__ import annotations

import io

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

DIAGRAMS = {"compress_level": 1}  # Pillow's arguments for PNG; white paper shrinks all the same, in half the time


def jpeg_of(pixels: np.ndarray, most: int | None = None) -> bytes:
    """Of uint8 [height, width, 3], at most `most` pixels wide and high."""
    picture = Image.fromarray(pixels)
    if most:
        picture.thumbnail((most, most))
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def png_of(figure: Figure, dpi: int = 160) -> bytes:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=dpi, pil_kwargs=DIAGRAMS)
    return stream.getvalue()
