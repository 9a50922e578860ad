"""Composed values -> a checked Recipe, or every fault at once in the words of the command line."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from thaw.config.catalog import optimizer_arguments, torch_optimizer
from thaw.config.consistency import Rule, contradictions
from thaw.config.faults import Fault, UserFault, listing, nearest
from thaw.config.schema import Recipe

Path = tuple[str | int, ...]


def validated(values: Mapping[str, Any], rules: Sequence[Rule] | None = None) -> Recipe:
    """The recipe that `values` describe. `rules` are which contradictions are looked for, by default all: of what was
    trained somewhere else, weights and folders need not be here.

    Raises:
        UserFault: with every unknown key, wrong type, value out of range and contradiction.
    """
    found = faults_in(values, rules)
    if found:
        raise UserFault("the recipe is not valid", [fault for _, fault in found])
    return Recipe.model_validate(values)


def faults_in(values: Mapping[str, Any], rules: Sequence[Rule] | None = None) -> list[tuple[str, Fault]]:
    """Pairs of the dotted key to blame and its fault; contradictions are looked for where all else is right."""
    unset = [(key, Fault(f"{key} has no value yet", fix=f"{key}=VALUE")) for key in _unset(values)]
    try:
        clashing = contradictions(Recipe.model_validate(values), rules)
        return [*unset, *((key, fault) for key, fault in clashing if key not in dict(unset))]
    except ValidationError as error:
        details = sorted(error.errors(include_url=False), key=lambda one: _dotted(_path(one, values)))
        by_key = groupby(details, key=lambda one: _dotted(_path(one, values)))
        return [*unset, *((key, _fault(key, list(same), values)) for key, same in by_key if key not in dict(unset))]


def _unset(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys whose YAML says `???`: they have no sensible default."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _unset(value, f"{prefix}{key}.")
        elif value == "???":
            yield f"{prefix}{key}"


def _fault(key: str, details: Sequence[Any], values: Mapping[str, Any]) -> Fault:
    kind, path = details[0]["type"], _path(details[0], values)
    if kind == "extra_forbidden":
        return unknown_key(path, values)
    if kind == "missing":
        return Fault(f"{key} is missing", fix=f"{key}=VALUE")
    got = details[0]["input"]
    if kind.startswith("union_tag"):
        tag = details[0]["ctx"]["discriminator"].strip("'")
        key, got = f"{key}.{tag}", got.get(tag) if isinstance(got, Mapping) else got
    valid = " or ".join(dict.fromkeys(_valid(one) for one in details))
    closest = nearest(str(got), re.findall(r"'([^']+)'", valid))
    told = "null" if got is None else f"{got!r} ({type(got).__name__})"
    return Fault(f"{key}={_typed(got)}", told, valid, f"{key}={closest}" if closest else "")


def unknown_key(path: Path, values: Mapping[str, Any]) -> Fault:
    """The fault of a key that the schema has no place for, with the keys beside it and the nearest one."""
    *parents, last = path
    siblings = _keys_at(tuple(parents), values)
    closest = nearest(str(last), siblings)
    fix = _assignment((*parents, closest), _value_at(path, values)) if closest else "leave it out"
    if parents == ["optimizer"] and last in _optimizer_arguments(values):
        fix = _assignment(("optimizer", "arguments", last), _value_at(path, values))
    return Fault(f"{_dotted(path)}: no such key", valid=listing(siblings), fix=fix)


def _optimizer_arguments(values: Mapping[str, Any]) -> Collection[str]:
    name = torch_optimizer(str(values["optimizer"].get("name")))
    return optimizer_arguments(name) if name else ()


def _assignment(path: Path, value: Any) -> str:
    """What to type: `traner.epochs=3` comes here as {"epochs": 3} under the wrong key."""
    while isinstance(value, Mapping) and len(value) == 1:
        ((key, value),) = value.items()
        path = (*path, key)
    return f"{_dotted(path)}={'...' if isinstance(value, Mapping) else _typed(value)}"


def _typed(value: Any) -> str:
    """As a command line has it, not as Python does."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _value_at(path: Path, values: Any) -> Any:
    for key in path:
        values = values[key]
    return values


def _valid(detail: Any) -> str:
    if "expected_tags" in detail.get("ctx", {}):
        return str(detail["ctx"]["expected_tags"])
    text = re.sub(r"^(Input|List|String) should (be|have) | after validation, not \d+$", "", detail["msg"])
    return text.removeprefix("a valid ").replace("String should match pattern", "text that matches")


def _dotted(path: Path) -> str:
    return ".".join(map(str, path))


def _path(detail: Any, values: Any) -> Path:
    """The path within `values`: pydantic's location also names union members, which no user has typed."""
    location, path = detail["loc"], []
    for item in location:
        known = item in values if isinstance(values, Mapping) else isinstance(values, list) and isinstance(item, int)
        if known:
            path.append(item)
            values = values[item]
    missing = [location[-1]] if detail["type"] == "missing" else []
    return tuple(path + missing)


def _keys_at(path: Path, values: Any) -> list[str]:
    annotation: Any = Recipe
    for key in path:
        model = _model_of(annotation, values)
        is_mapping = get_origin(annotation) is dict
        annotation = get_args(annotation)[1] if is_mapping else model.model_fields[str(key)].annotation
        values = values[key]
    return list(_model_of(annotation, values).model_fields)


def _model_of(annotation: Any, values: Any) -> type[BaseModel]:
    """Of the models that `annotation` admits, the one whose discriminating field has the value given."""
    models = list(_models_in(annotation))
    fitting = [model for model in models if all(_admits(model, key, values.get(key)) for key in ("kind", "name"))]
    return (fitting or models)[0]


def _admits(model: type[BaseModel], key: str, value: Any) -> bool:
    field = model.model_fields.get(key)
    return field is None or get_origin(field.annotation) is not Literal or value in get_args(field.annotation)


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models_in(inner)
