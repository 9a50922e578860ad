"""What the installed libraries offer, read from their source: importing torchvision or timm takes 4 s, torch 2 s."""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from thaw.config.signature import Form, constructor

# Both libraries register a builder as `@register_model()` (torchvision) or `@register_model` (timm) over `def NAME(`.
REGISTERED = re.compile(r"^@register_model(?:\(\))?\n(?:@.*\n(?:    .*\n|\)\n)*)*def (\w+)\(", re.MULTILINE)
# torch/optim/__init__.py says `from torch.optim.adam import Adam as Adam`; Optimizer is what they all extend.
OPTIMIZER = re.compile(r"^from torch\.optim\.(\w+) import (?!Optimizer\b)([A-Z]\w*) as", re.MULTILINE)


@cache
def backbone_names(library: str) -> frozenset[str]:
    """Names of `library`'s classifiers: the files directly in its `models` folder; detection and video lie deeper."""
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        return frozenset()
    files = (Path(spec.origin).parent / "models").glob("*.py")
    return frozenset(name for file in files for name in REGISTERED.findall(file.read_text(encoding="utf-8")))


@cache
def optimizer_names() -> dict[str, Path]:
    """Torch's optimizers, each with the file that defines it."""
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "optim"
    found = OPTIMIZER.findall((folder / "__init__.py").read_text(encoding="utf-8"))
    return {name: folder / f"{module}.py" for module, name in sorted(found, key=lambda one: one[1].lower())}


def torch_optimizer(name: str) -> str | None:
    """Torch's spelling of `name`, which may be in any case and may begin with `torch.optim.`; None: not of torch."""
    lowered = name.lower().removeprefix("torch.optim.")
    return next((one for one in optimizer_names() if one.lower() == lowered), None)


@cache
def optimizer_arguments(name: str) -> dict[str, Form]:
    """The constructor's arguments of an optimizer in torch's spelling, and what each may be (1 to 10 ms)."""
    return constructor(optimizer_names()[name].read_text(encoding="utf-8"), name)


def module_is_there(name: str) -> bool:
    """Whether the top of a dotted path can be imported, the working directory counted in."""
    top = name.split(".")[0]
    return top in sys.modules or find_spec(top) is not None or PathFinder.find_spec(top, [str(Path.cwd())]) is not None
