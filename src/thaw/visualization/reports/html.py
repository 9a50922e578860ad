"""Render self-contained HTML pages: one file each, with its style and images inside."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from thaw.config.printable import escape_text
from thaw.system.portable import shorten_home
from thaw.visualization.plots.encode import encode_jpeg

THUMBNAIL_SIDE = 128  # pixels; a data URI of 4 kB


def render_template(template: str, *, package: str = "thaw.visualization.reports", **values: Any) -> str:
    """Render a template of `package`, which may extend `page.html`; all text is escaped.

    Raises:
        jinja2.UndefinedError: where the template uses a name that `values` lack.
    """
    loaders = [PackageLoader(package), PackageLoader("thaw.visualization.reports")]
    environment = Environment(
        loader=ChoiceLoader(loaders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        finalize=_prepare_text,
    )
    return environment.get_template(template).render(**values)


def _prepare_text(value: Any) -> Any:
    """Escape control and bidirectional characters of text and shorten the home folder, as pages are shared; data URIs
    and other markup of ours stay as they are."""
    is_text = isinstance(value, str) and not isinstance(value, Markup)
    return shorten_home(escape_text(value)) if is_text else value


def encode_thumbnail(pixels: np.ndarray, side: int = THUMBNAIL_SIDE) -> Markup:
    """Encode uint8 [height, width, 3] as the data URI of a JPEG, at most `side` pixels wide and high."""
    return encode_data_uri(encode_jpeg(pixels, side), "jpeg")


def encode_data_uri(content: bytes, kind: str = "png") -> Markup:
    """Encode the content of an image file as a data URI."""
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")
