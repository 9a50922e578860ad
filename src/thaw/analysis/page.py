"""Pages that need nothing else: one style, pictures inside."""

from __future__ import annotations

import base64
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined
from markupsafe import Markup


def rendered(package: str, template: str, values: dict[str, Any]) -> str:
    """`template` from the templates of `package`; it may include `page.css`, which all pages share."""
    loaders = [PackageLoader(package), PackageLoader("thaw.analysis")]
    environment = Environment(
        loader=ChoiceLoader(loaders), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    return environment.get_template(template).render(values)


def picture_uri(content: bytes, kind: str) -> Markup:
    return Markup(f"data:image/{kind};base64,{base64.b64encode(content).decode()}")
