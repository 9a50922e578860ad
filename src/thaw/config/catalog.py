"""The classifiers that the installed torchvision and timm register, without importing either (4 s)."""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

# Both libraries register a builder as `@register_model()` (torchvision) or `@register_model` (timm) over `def NAME(`.
REGISTERED = re.compile(r"^@register_model(?:\(\))?\n(?:@.*\n(?:    .*\n|\)\n)*)*def (\w+)\(", re.MULTILINE)


@cache
def backbone_names(library: str) -> frozenset[str]:
    """Names of `library`'s classifiers: the files directly in its `models` folder; detection and video lie deeper."""
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        return frozenset()
    files = (Path(spec.origin).parent / "models").glob("*.py")
    return frozenset(name for file in files for name in REGISTERED.findall(file.read_text(encoding="utf-8")))
