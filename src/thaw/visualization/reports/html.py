"""Pages that need nothing else: one file each, its style and pictures inside."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thaw.visualization.plots.encode import encode_jpeg

THUMBNAIL_SIDE = 128  # pixels; a data URI of 4 kB


def render_template(template: str, *, package: str = "thaw.visualization.reports", **values: Any) -> str:
    """`template` is a file of the templates of `package`, and may extend `page.html`, which all pages share. What it
    names and `values` lack is an error. All text is escaped."""
    loaders = [PackageLoader(package), PackageLoader("thaw.visualization.reports")]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(**values)


def encode_thumbnail(pixels: np.ndarray, side: int = THUMBNAIL_SIDE) -> Markup:
    """A data URI of uint8 [height, width, 3], at most `side` pixels wide and high."""
    return encode_data_uri(encode_jpeg(pixels, side), "jpeg")


def encode_data_uri(content: bytes, kind: str = "png") -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")
