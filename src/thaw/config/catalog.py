"""List the networks and optimizers of the installed libraries, read from their source: importing torchvision or timm
takes 4 s, torch 2 s."""

from __future__ import annotations

import re
import sys
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path

from thaw.config.signature import ArgumentType, parse_constructor_arguments

# Both libraries register a builder as `@register_model()` (torchvision) or `@register_model` (timm) over `def NAME(`.
REGISTERED_MODEL_PATTERN = re.compile(
    r"^@register_model(?:\(\))?\n(?:@.*\n(?:    .*\n|\)\n)*)*def (\w+)\(", re.MULTILINE
)
# torch/optim/__init__.py has `from torch.optim.adam import Adam as Adam`; Optimizer is the base class of all.
OPTIMIZER_IMPORT_PATTERN = re.compile(r"^from torch\.optim\.(\w+) import (?!Optimizer\b)([A-Z]\w*) as", re.MULTILINE)


@cache
def list_backbones(library: str) -> frozenset[str]:
    """Return the names of `library`'s classifiers: those in its `models` folder; detection and video are in folders
    below it. Empty if the library is not installed."""
    spec = find_spec(library)
    if spec is None or spec.origin is None:
        return frozenset()
    files = (Path(spec.origin).parent / "models").glob("*.py")
    return frozenset(
        name for file in files for name in REGISTERED_MODEL_PATTERN.findall(file.read_text(encoding="utf-8"))
    )


@cache
def list_optimizer_files() -> dict[str, Path]:
    """Return torch's optimizers, each with the file that defines it."""
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    folder = Path(spec.origin).parent / "optim"
    imported_optimizers = OPTIMIZER_IMPORT_PATTERN.findall((folder / "__init__.py").read_text(encoding="utf-8"))
    return {
        name: folder / f"{module}.py"
        for module, name in sorted(imported_optimizers, key=lambda module_and_name: module_and_name[1].lower())
    }


def resolve_torch_optimizer(name: str) -> str | None:
    """Return torch's spelling of `name`, which may be in any case and start with `torch.optim.`; None: not in torch."""
    lowercase_name = name.lower().removeprefix("torch.optim.")
    return next(
        (optimizer_name for optimizer_name in list_optimizer_files() if optimizer_name.lower() == lowercase_name), None
    )


@cache
def read_optimizer_arguments(name: str) -> dict[str, ArgumentType]:
    """Return the constructor's arguments of an optimizer in torch's spelling, with their types (1 to 10 ms)."""
    return parse_constructor_arguments(list_optimizer_files()[name].read_text(encoding="utf-8"), name)


def is_module_importable(name: str) -> bool:
    """Whether the first module of a dotted path can be imported, also from the working directory."""
    top_level_module = name.split(".")[0]
    return (
        top_level_module in sys.modules
        or find_spec(top_level_module) is not None
        or PathFinder.find_spec(top_level_module, [str(Path.cwd())]) is not None
    )
