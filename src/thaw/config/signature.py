"""Find out which values a constructor takes, from its source and without importing it."""

from __future__ import annotations

import ast
from typing import Any

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
