"""Find out which values a constructor takes, from its source and without importing it."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from thaw.config.catalog import (
    is_module_importable,
    list_optimizer_files,
    read_optimizer_arguments,
    resolve_torch_optimizer,
)
from thaw.config.errors import Problem, find_closest_name, format_names
from thaw.config.schema import OptimizerConfig, Recipe

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
    """Whether a value from YAML has the type `argument_type`; true and false are no numbers."""
    return any(_is_valid_member(value, member) for member in argument_type)


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


# Arguments that thaw passes to every constructor, and what to change instead.
RESERVED_ARGUMENTS = {
    "params": "leave it out: strategy.phases decides what trains",
    "lr": "optimizer.learning_rate=VALUE",
    "weight_decay": "optimizer.weight_decay=VALUE",
    "fused": "leave it out: the device and the precision decide it",
    "foreach": "leave it out: torch chooses it for the device",
    "capturable": "leave it out: steps are not captured in CUDA graphs",
    "differentiable": "leave it out: nothing differentiates through a step",
}
UNSUPPORTED_OPTIMIZERS = {
    "LBFGS": "it computes the loss many times in a step, and a batch is computed once",
    "Muon": "it takes only matrices, and every network has biases, which are vectors",
    "SparseAdam": "it takes only sparse gradients, and those of a classifier are dense",
}


def check_optimizer_exists(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem if the optimizer is neither one of torch nor in an importable module."""
    name = recipe.optimizer.name
    if resolve_torch_optimizer(name):
        return
    if is_class_path(name):
        yield from _check_module_exists(name)
        return
    names = [
        optimizer_name.lower()
        for optimizer_name in list_optimizer_files()
        if optimizer_name not in UNSUPPORTED_OPTIMIZERS
    ]
    closest = find_closest_name(name.split(".")[-1], names)
    valid = f"{format_names(names)}; or module.Class"
    yield (
        "optimizer.name",
        Problem(_format_optimizer_name(name), f"{name!r}", valid, f"optimizer.name={closest}" if closest else ""),
    )


def is_class_path(name: str) -> bool:
    """Whether `name` is module.Class and not an optimizer of torch.optim."""
    parts = name.split(".")
    return len(parts) > 1 and all(part.isidentifier() for part in parts) and not name.startswith("torch.optim.")


def _check_module_exists(name: str) -> Iterator[tuple[str, Problem]]:
    if is_module_importable(name):
        return
    top_level_module, attribute_path = name.split(".", 1)
    closest = find_closest_name(top_level_module, (path.stem for path in Path.cwd().glob("*.py")))
    valid = f"a module in {Path.cwd()}, or an installed one"
    fix = f"optimizer.name={closest}.{attribute_path}" if closest else ""
    yield "optimizer.name", Problem(_format_optimizer_name(name), f"no module {top_level_module!r}", valid, fix)


def _format_optimizer_name(name: str) -> str:
    return f"optimizer.name={name}"


def check_optimizer_supported(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem if the optimizer cannot train a classifier here."""
    name = recipe.optimizer.name
    if reason := UNSUPPORTED_OPTIMIZERS.get(resolve_torch_optimizer(name) or ""):
        yield (
            "optimizer.name",
            Problem(f"{_format_optimizer_name(name)} cannot train here: {reason}", fix="optimizer=adamw"),
        )


def check_reserved_arguments(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem for each argument that thaw sets."""
    for key in recipe.optimizer.arguments:
        if key in RESERVED_ARGUMENTS:
            yield (
                f"optimizer.arguments.{key}",
                Problem(f"optimizer.arguments.{key} is set by thaw", fix=RESERVED_ARGUMENTS[key]),
            )


def check_optimizer_arguments(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem for each argument that the constructor does not have, or whose type is wrong."""
    name = resolve_torch_optimizer(recipe.optimizer.name)
    if name is None or name in UNSUPPORTED_OPTIMIZERS:
        return  # a class of the user is checked when it is built
    argument_types = read_optimizer_arguments(name)
    for key, value in recipe.optimizer.arguments.items():
        argument_key = f"optimizer.arguments.{key}"
        if key not in argument_types:
            yield (
                argument_key,
                build_unknown_argument_problem(
                    recipe.optimizer,
                    key,
                    [argument_name for argument_name in argument_types if argument_name not in RESERVED_ARGUMENTS],
                ),
            )
        elif key not in RESERVED_ARGUMENTS and not is_valid_value(value, argument_types[key]):
            got = f"{json.dumps(value)} ({type(value).__name__})"
            yield (
                argument_key,
                Problem(f"{argument_key}={json.dumps(value)}", got, describe_argument_type(argument_types[key])),
            )


def build_unknown_argument_problem(optimizer: OptimizerConfig, key: str, valid: list[str]) -> Problem:
    """Return the problem of an argument that the constructor of `optimizer` does not have."""
    closest = find_closest_name(key, valid)
    assignment = f"optimizer.arguments.{closest}={json.dumps(optimizer.arguments[key])}"
    fix = assignment if closest else f"~optimizer.arguments.{key}, or optimizer=torch, which begins without arguments"
    subject = f"optimizer.arguments.{key}: no such argument of {_format_optimizer_name(optimizer.name)}"
    return Problem(subject, valid=format_names(valid) or "none", fix=fix)


def check_weight_decay(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem if there is weight decay and the optimizer has none."""
    optimizer = recipe.optimizer
    name = resolve_torch_optimizer(optimizer.name)
    if (
        name
        and name not in UNSUPPORTED_OPTIMIZERS
        and optimizer.weight_decay
        and "weight_decay" not in read_optimizer_arguments(name)
    ):
        yield "optimizer.weight_decay", build_weight_decay_problem(optimizer)


def build_weight_decay_problem(optimizer: OptimizerConfig) -> Problem:
    """Return the problem of weight decay with an optimizer that has none."""
    subject = (
        f"optimizer.weight_decay={optimizer.weight_decay:g}, and {_format_optimizer_name(optimizer.name)} takes none"
    )
    return Problem(subject, fix="optimizer.weight_decay=0.0")


def check_nesterov(recipe: Recipe) -> Iterator[tuple[str, Problem]]:
    """Yield a problem if Nesterov momentum contradicts momentum or dampening, as torch would raise."""
    arguments: dict[str, Any] = recipe.optimizer.arguments
    if resolve_torch_optimizer(recipe.optimizer.name) != "SGD" or arguments.get("nesterov") is not True:
        return
    arguments_key = "optimizer.arguments"
    if arguments.get("momentum", 0) == 0:
        yield (
            f"{arguments_key}.nesterov",
            Problem(f"{arguments_key}.nesterov=true needs momentum", fix=f"{arguments_key}.momentum=0.9"),
        )
    if arguments.get("dampening", 0) != 0:
        subject = f"{arguments_key}.nesterov=true allows no dampening"
        yield f"{arguments_key}.dampening", Problem(subject, fix=f"{arguments_key}.dampening=0")


OPTIMIZER_RULES = (
    check_optimizer_exists,
    check_optimizer_supported,
    check_reserved_arguments,
    check_optimizer_arguments,
    check_weight_decay,
    check_nesterov,
)
