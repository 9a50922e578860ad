"""What values a constructor takes, read from its source without importing it."""

from __future__ import annotations

import ast
from typing import Any

# What an argument may be: words for scalars, and for a pair or a triple a tuple of what its items may be.
Form = frozenset["str | tuple[Form, ...]"]
ANYTHING: Form = frozenset({"anything"})
SCALARS = {"float": "number", "int": "integer", "bool": "boolean", "str": "text"}
TYPES: dict[str, tuple[type, ...]] = {
    "number": (int, float),
    "integer": (int,),
    "boolean": (bool,),
    "text": (str,),
    "null": (type(None),),
}


def constructor(source: str, name: str) -> dict[str, Form]:
    """The arguments of `name.__init__` in a module's source, without `self`, and what each may be."""
    named = (node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name)
    methods = (node for node in next(named).body if isinstance(node, ast.FunctionDef))
    arguments = next(method for method in methods if method.name == "__init__").args
    places = arguments.posonlyargs + arguments.args
    defaults = [*[None] * (len(places) - len(arguments.defaults)), *arguments.defaults, *arguments.kw_defaults]
    both = zip([*places, *arguments.kwonlyargs], defaults, strict=True)
    return {one.arg: _form(one.annotation, default) for one, default in both if one.arg != "self"}


def _form(annotation: ast.expr | None, default: ast.expr | None) -> Form:
    if annotation is not None:
        return _annotated(annotation)
    if isinstance(default, ast.Constant) and type(default.value).__name__ in SCALARS:
        return frozenset({SCALARS[type(default.value).__name__]})
    return ANYTHING


def _annotated(node: ast.expr) -> Form:
    match node:
        case ast.Name("Tensor"):
            return frozenset()  # no YAML holds one
        case ast.Name(name) if name in SCALARS:
            return frozenset({SCALARS[name]})
        case ast.Constant(None):
            return frozenset({"null"})
        case ast.BinOp(left, ast.BitOr(), right):
            return _annotated(left) | _annotated(right)
        case ast.Subscript(ast.Name("Optional"), inner):
            return _annotated(inner) | {"null"}
        case ast.Subscript(ast.Name("Union"), ast.Tuple(items)):
            return frozenset[str | tuple[Form, ...]]().union(*map(_annotated, items))
        case ast.Subscript(ast.Name("tuple" | "Tuple"), ast.Tuple(items)):
            return frozenset({tuple(map(_annotated, items))})
    return ANYTHING


def fits(value: Any, form: Form) -> bool:
    """Whether a value of YAML is one that `form` allows; true and false are no numbers."""
    return any(_fits(value, one) for one in form)


def _fits(value: Any, one: str | tuple[Form, ...]) -> bool:
    if isinstance(one, tuple):
        return isinstance(value, list) and len(value) == len(one) and all(map(fits, value, one))
    if one == "anything":
        return True
    return isinstance(value, TYPES[one]) and (one == "boolean" or not isinstance(value, bool))


def described(form: Form) -> str:
    """`form` in words: `number`, `boolean or null`, `[number, number]`."""
    return " or ".join(sorted(map(_described, form), key=lambda words: (words == "null", words)))


def _described(one: str | tuple[Form, ...]) -> str:
    return one if isinstance(one, str) else f"[{', '.join(map(described, one))}]"
