"""Pages that need nothing else: one file each, its style and pictures inside."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thaw.analysis.encoded import jpeg_of

THUMB = 128  # pixels; a data URI of 4 kB


def rendered(template: str, *, package: str = "thaw.analysis", **values: Any) -> str:
    """`template` is a file of the templates of `package`, and may extend `page.html`, which all pages share. What it
    names and `values` lack is an error. All text is escaped."""
    loaders = [PackageLoader(package), PackageLoader("thaw.analysis")]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(**values)


def thumb(pixels: np.ndarray, side: int = THUMB) -> Markup:
    """A data URI of uint8 [height, width, 3], at most `side` pixels wide and high."""
    return data_uri(jpeg_of(pixels, side), "jpeg")


def data_uri(content: bytes, kind: str = "png") -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")
