"""List what a recipe can choose from without importing it: the presets of `conf/`, the networks and optimizers of the
installed libraries, the arguments of a constructor. Importing torchvision or timm takes 4 s, torch 2 s."""

from __future__ import annotations

import ast
import math
import re
import sys
from functools import cache
from importlib.machinery import PathFinder
from importlib.util import find_spec
from pathlib import Path
from typing import Any

# Both libraries register a builder as `@register_model()` (torchvision) or `@register_model` (timm) over `def NAME(`.
REGISTERED_MODEL_PATTERN = re.compile(
    r"^@register_model(?:\(\))?\n(?:@.*\n(?:    .*\n|\)\n)*)*def (\w+)\(", re.MULTILINE
)
# torch/optim/__init__.py has `from torch.optim.adam import Adam as Adam`; Optimizer is the base class of all.
OPTIMIZER_IMPORT_PATTERN = re.compile(r"^from torch\.optim\.(\w+) import (?!Optimizer\b)([A-Z]\w*) as", re.MULTILINE)
# The valid types of an argument: names of scalar types, and for a pair or a triple a tuple of the types of its items.
ArgumentType = frozenset["str | tuple[ArgumentType, ...]"]
ANY_TYPE: ArgumentType = frozenset({"anything"})
SCALAR_NAMES = {"float": "number", "int": "integer", "bool": "boolean", "str": "text"}
PYTHON_TYPES: dict[str, tuple[type, ...]] = {
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "text": (str,),
    "null": (type(None),),
}
LAUNCHER_GROUPS = ("launcher", "hydra/launcher")
EXTRA_BY_LAUNCHER = {"joblib": "joblib", "submitit_local": "submitit", "submitit_slurm": "submitit", "ray": "ray"}


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


def get_config_folder() -> Path:
    """Return `conf/`: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged_folder = package / "conf"
    return packaged_folder if packaged_folder.is_dir() else package.parents[1] / "conf"


def list_group_choices() -> dict[str, list[str]]:
    """Return the choices of every group of the recipe, both sorted: {"augment": ["caltech_tutorial", ...], ...}."""
    folders = sorted(path for path in get_config_folder().iterdir() if path.is_dir())
    choices = {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}
    return {group: names for group, names in choices.items() if names}


def read_description(file: Path) -> str:
    """Return the first sentence of the comment that a file of `conf/` begins with, or "-" if there is none."""
    first_sentence = re.split(r"(?<=\.)\s+(?=[A-Z])", read_comment(file), maxsplit=1)[0]
    return first_sentence.removesuffix(".") or "-"


def read_comment(file: Path) -> str:
    """Return the first paragraph of the comment that a file of `conf/` begins with; empty if there is none."""
    lines: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        is_end_of_paragraph = lines and (not text or line.startswith("#  "))  # an indented line is a command
        if not line.startswith("#") or is_end_of_paragraph:
            break
        lines += [text] if text and not text.startswith(("@package", "yaml-language-server:")) else []
    return " ".join(lines)


def parse_constructor_arguments(source: str, name: str) -> dict[str, ArgumentType]:
    """Return the arguments of `name.__init__` in a module's `source`, without `self`, and their types."""
    matching_classes = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name)
    methods = (node for node in next(matching_classes).body if isinstance(node, ast.FunctionDef))
    arguments = next(method for method in methods if method.name == "__init__").args
    positional_arguments = arguments.posonlyargs + arguments.args
    defaults = [
        *[None] * (len(positional_arguments) - len(arguments.defaults)),
        *arguments.defaults,
        *arguments.kw_defaults,
    ]
    arguments_with_defaults = zip([*positional_arguments, *arguments.kwonlyargs], defaults, strict=True)
    return {
        argument.arg: _infer_argument_type(argument.annotation, default)
        for argument, default in arguments_with_defaults
        if argument.arg != "self"
    }


def _infer_argument_type(annotation: ast.expr | None, default: ast.expr | None) -> ArgumentType:
    if annotation is not None:
        return _parse_annotation(annotation)
    if isinstance(default, ast.Constant) and type(default.value).__name__ in SCALAR_NAMES:
        return frozenset({SCALAR_NAMES[type(default.value).__name__]})
    return ANY_TYPE


def _parse_annotation(node: ast.expr) -> ArgumentType:
    match node:
        case ast.Name("Tensor"):
            return frozenset()  # YAML has no tensors
        case ast.Name(name) if name in SCALAR_NAMES:
            return frozenset({SCALAR_NAMES[name]})
        case ast.Constant(None):
            return frozenset({"null"})
        case ast.BinOp(left, ast.BitOr(), right):
            return _parse_annotation(left) | _parse_annotation(right)
        case ast.Subscript(ast.Name("Optional"), inner):
            return _parse_annotation(inner) | {"null"}
        case ast.Subscript(ast.Name("Union"), ast.Tuple(items)):
            return frozenset[str | tuple[ArgumentType, ...]]().union(*map(_parse_annotation, items))
        case ast.Subscript(ast.Name("tuple" | "Tuple"), ast.Tuple(items)):
            return frozenset({tuple(map(_parse_annotation, items))})
    return ANY_TYPE


def is_valid_value(value: Any, argument_type: ArgumentType) -> bool:
    """Whether a value from YAML has the type `argument_type`; true and false are no numbers, nor are inf and nan."""
    return is_finite(value) and any(_is_valid_member(value, member) for member in argument_type)


def is_finite(value: Any) -> bool:
    """Whether every number in `value`, at any depth of lists and mappings, is finite."""
    if isinstance(value, list | dict):
        return all(map(is_finite, value.values() if isinstance(value, dict) else value))
    return not isinstance(value, float) or math.isfinite(value)


def _is_valid_member(value: Any, member: str | tuple[ArgumentType, ...]) -> bool:
    if isinstance(member, tuple):
        return isinstance(value, list) and len(value) == len(member) and all(map(is_valid_value, value, member))
    if member == "anything":
        return True
    return isinstance(value, PYTHON_TYPES[member]) and (member == "boolean" or not isinstance(value, bool))


def describe_argument_type(argument_type: ArgumentType) -> str:
    """Return the type in words: `number`, `boolean or null`, `[number, number]`."""
    return " or ".join(
        sorted(map(_describe_member, argument_type), key=lambda description: (description == "null", description))
    )


def _describe_member(member: str | tuple[ArgumentType, ...]) -> str:
    return member if isinstance(member, str) else f"[{', '.join(map(describe_argument_type, member))}]"


def get_install_command(group: str, name: str) -> str:
    """Return the command that installs the launcher `name`; empty if `group` and `name` are no launcher."""
    return (
        f'pip install "thaw[{EXTRA_BY_LAUNCHER[name]}]"'
        if group in LAUNCHER_GROUPS and name in EXTRA_BY_LAUNCHER
        else ""
    )
