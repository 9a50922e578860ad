"""Composed values -> a checked Recipe, or every fault at once in the words of the command line."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from thaw.config.catalog import read_optimizer_arguments, resolve_torch_optimizer
from thaw.config.consistency import Rule, find_contradictions
from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.schema import Recipe

KeyPath = tuple[str | int, ...]


def validate_recipe(values: Mapping[str, Any], rules: Sequence[Rule] | None = None) -> Recipe:
    """The recipe that `values` describe. `rules` are which contradictions are looked for, by default all: of what was
    trained somewhere else, weights and folders need not be here.

    Raises:
        UserFault: with every unknown key, wrong type, value out of range and contradiction.
    """
    keyed_problems = find_problems(values, rules)
    if keyed_problems:
        raise UserError("the recipe is not valid", [problem for _, problem in keyed_problems])
    return Recipe.model_validate(values)


def find_problems(values: Mapping[str, Any], rules: Sequence[Rule] | None = None) -> list[tuple[str, Problem]]:
    """Pairs of the dotted key to blame and its fault; contradictions are looked for where all else is right."""
    unset_problems = [(key, Problem(f"{key} has no value yet", fix=f"{key}=VALUE")) for key in _find_unset_keys(values)]
    try:
        conflicts = find_contradictions(Recipe.model_validate(values), rules)
        return [*unset_problems, *((key, problem) for key, problem in conflicts if key not in dict(unset_problems))]
    except ValidationError as error:
        details = sorted(
            error.errors(include_url=False), key=lambda detail: _format_key(_extract_key_path(detail, values))
        )
        details_by_key = groupby(details, key=lambda detail: _format_key(_extract_key_path(detail, values)))
        return [
            *unset_problems,
            *(
                (key, _build_problem(key, list(key_details), values))
                for key, key_details in details_by_key
                if key not in dict(unset_problems)
            ),
        ]


def _find_unset_keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys whose YAML says `???`: they have no sensible default."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _find_unset_keys(value, f"{prefix}{key}.")
        elif value == "???":
            yield f"{prefix}{key}"


def _build_problem(key: str, details: Sequence[Any], values: Mapping[str, Any]) -> Problem:
    error_type, key_path = details[0]["type"], _extract_key_path(details[0], values)
    if error_type == "extra_forbidden":
        return build_unknown_key_problem(key_path, values)
    if error_type == "missing":
        return Problem(f"{key} is missing", fix=f"{key}=VALUE")
    got = details[0]["input"]
    if error_type.startswith("union_tag"):
        tag = details[0]["ctx"]["discriminator"].strip("'")
        key, got = f"{key}.{tag}", got.get(tag) if isinstance(got, Mapping) else got
    valid = " or ".join(dict.fromkeys(_describe_valid_values(detail) for detail in details))
    closest = find_closest_name(str(got), re.findall(r"'([^']+)'", valid))
    got_text = "null" if got is None else f"{got!r} ({type(got).__name__})"
    return Problem(f"{key}={_format_value(got)}", got_text, valid, f"{key}={closest}" if closest else "")


def build_unknown_key_problem(key_path: KeyPath, values: Mapping[str, Any]) -> Problem:
    """The fault of a key that the schema has no place for, with the keys beside it and the nearest one."""
    *parents, last_key = key_path
    siblings = _list_keys(tuple(parents), values)
    closest = find_closest_name(str(last_key), siblings)
    fix = _format_assignment((*parents, closest), _get_value(key_path, values)) if closest else "leave it out"
    if parents == ["optimizer"] and last_key in _get_optimizer_arguments(values):
        fix = _format_assignment(("optimizer", "arguments", last_key), _get_value(key_path, values))
    return Problem(f"{_format_key(key_path)}: no such key", valid=format_names(siblings), fix=fix)


def _get_optimizer_arguments(values: Mapping[str, Any]) -> Collection[str]:
    name = resolve_torch_optimizer(str(values["optimizer"].get("name")))
    return read_optimizer_arguments(name) if name else ()


def _format_assignment(key_path: KeyPath, value: Any) -> str:
    """What to type: `traner.epochs=3` comes here as {"epochs": 3} under the wrong key."""
    while isinstance(value, Mapping) and len(value) == 1:
        ((key, value),) = value.items()
        key_path = (*key_path, key)
    return f"{_format_key(key_path)}={'...' if isinstance(value, Mapping) else _format_value(value)}"


def _format_value(value: Any) -> str:
    """As a command line has it, not as Python does."""
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _get_value(key_path: KeyPath, values: Any) -> Any:
    for key in key_path:
        values = values[key]
    return values


def _describe_valid_values(detail: Any) -> str:
    if "expected_tags" in detail.get("ctx", {}):
        return str(detail["ctx"]["expected_tags"])
    text = re.sub(r"^(Input|List|String) should (be|have) | after validation, not \d+$", "", detail["msg"])
    return text.removeprefix("a valid ").replace("String should match pattern", "text that matches")


def _format_key(key_path: KeyPath) -> str:
    return ".".join(map(str, key_path))


def _extract_key_path(detail: Any, values: Any) -> KeyPath:
    """The path within `values`: pydantic's location also names union members, which no user has typed."""
    location, key_path = detail["loc"], []
    for item in location:
        is_present = (
            item in values if isinstance(values, Mapping) else isinstance(values, list) and isinstance(item, int)
        )
        if is_present:
            key_path.append(item)
            values = values[item]
    missing_keys = [location[-1]] if detail["type"] == "missing" else []
    return tuple(key_path + missing_keys)


def _list_keys(key_path: KeyPath, values: Any) -> list[str]:
    annotation: Any = Recipe
    for key in key_path:
        model = _select_model(annotation, values)
        is_mapping = get_origin(annotation) is dict
        annotation = get_args(annotation)[1] if is_mapping else model.model_fields[str(key)].annotation
        values = values[key]
    return list(_select_model(annotation, values).model_fields)


def _select_model(annotation: Any, values: Any) -> type[BaseModel]:
    """Of the models that `annotation` admits, the one whose discriminating field has the value given."""
    models = list(_iter_models(annotation))
    matching_models = [
        model for model in models if all(_is_valid_for_model(model, key, values.get(key)) for key in ("kind", "name"))
    ]
    return (matching_models or models)[0]


def _is_valid_for_model(model: type[BaseModel], key: str, value: Any) -> bool:
    field = model.model_fields.get(key)
    return field is None or get_origin(field.annotation) is not Literal or value in get_args(field.annotation)


def _iter_models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for nested_annotation in get_args(annotation):
        yield from _iter_models(nested_annotation)
