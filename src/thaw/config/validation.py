"""Validate composed values: return a Recipe, or report every problem at once in terms of the command line."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError

from thaw.config.catalog import list_group_choices, read_optimizer_arguments, resolve_torch_optimizer
from thaw.config.consistency import Rule, find_contradictions
from thaw.config.errors import Problem, UserError, find_closest_name, format_names, format_value
from thaw.config.guesses import VALUE_GUESSES
from thaw.config.reference import describe_keys, describe_valid_values, iter_models
from thaw.config.renamed_keys import find_new_key
from thaw.config.schema import Recipe
from thaw.config.suggestions import quote_for_shell, suggest_for_key

KeyPath = tuple[str | int, ...]


def validate_recipe(values: Mapping[str, Any], rules: Sequence[Rule] | None = None) -> Recipe:
    """Return the recipe with `values`. `rules` are the contradictions to look for, by default all; a recipe of a model
    that was trained on another machine needs fewer, because weights and folders need not exist here.

    Raises:
        UserError: with every unknown key, wrong type, value out of range and contradiction.
    """
    keyed_problems = find_problems(values, rules)
    if keyed_problems:
        raise UserError("the recipe is not valid.", [problem for _, problem in keyed_problems])
    return Recipe.model_validate(values)


def find_problems(values: Mapping[str, Any], rules: Sequence[Rule] | None = None) -> list[tuple[str, Problem]]:
    """Return pairs of a dotted key and its problem. Contradictions are looked for only if every value is valid."""
    unset_problems = [(key, Problem(f"{key} has no value yet", fix=f"{key}=VALUE")) for key in _find_unset_keys(values)]
    try:
        conflicts = find_contradictions(Recipe.model_validate(values), rules)
        return [*unset_problems, *((key, problem) for key, problem in conflicts if key not in dict(unset_problems))]
    except ValidationError as error:
        details = sorted(
            _drop_missing_keys_that_have_old_names(error.errors(include_url=False)),
            key=lambda detail: _format_key(_extract_key_path(detail, values)),
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


def _drop_missing_keys_that_have_old_names(details: Sequence[Any]) -> list[Any]:
    """Leave out keys that are only missing because they have their names of version 0.1."""
    unknown_keys = [_format_key(detail["loc"]) for detail in details if detail["type"] == "extra_forbidden"]
    renamed_keys = {find_new_key(key) for key in unknown_keys}
    return [
        detail for detail in details if detail["type"] != "missing" or _format_key(detail["loc"]) not in renamed_keys
    ]


def _find_unset_keys(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Yield the dotted keys whose value is `???`: they have no sensible default."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _find_unset_keys(value, f"{prefix}{key}.")
        elif value == "???":
            yield f"{prefix}{key}"


def _build_problem(key: str, details: Sequence[Any], values: Mapping[str, Any]) -> Problem:
    error_type, key_path = details[0]["type"], _extract_key_path(details[0], values)
    if error_type == "extra_forbidden":
        return _build_unknown_key_problem(key_path, values)
    if error_type == "missing":
        return Problem(f"{key} is missing", fix=f"{key}=VALUE")
    if error_type == "union_tag_not_found":
        tag_key = f"{key}.{details[0]['ctx']['discriminator'].strip(chr(39))}"
        return Problem(f"{tag_key} is missing", valid=describe_valid_values(tag_key), fix=f"{tag_key}=VALUE")
    got = details[0]["input"]
    if error_type.startswith("union_tag"):
        tag = details[0]["ctx"]["discriminator"].strip("'")
        key, got = f"{key}.{tag}", got.get(tag) if isinstance(got, Mapping) else got
    valid = " or ".join(dict.fromkeys(_describe_valid_values(detail) for detail in details))
    closest = find_closest_name(str(got), re.findall(r"'([^']+)'", valid))
    got_text = "null" if got is None else f"{got!r} ({type(got).__name__})"
    fix = VALUE_GUESSES.get(key, {}).get(format_value(got).lower()) or closest
    return Problem(f"{key}={format_value(got)}", got_text, valid, f"{key}={fix}" if fix else "")


def _build_unknown_key_problem(key_path: KeyPath, values: Mapping[str, Any]) -> Problem:
    """Return the problem of a key that the schema does not have, with its siblings and the key that is meant."""
    key, value = _flatten(key_path, _get_value(key_path, values))
    if suggestion := suggest_for_key(_format_key(key), value):
        return replace(suggestion, subject=f"{_format_key(key_path)}: no such key")
    *parents, last_key = key_path
    siblings = _list_keys(tuple(parents), values)
    if choice := _find_choice_with_key(_format_key(key_path)):
        fix = f"{choice} {quote_for_shell(_format_assignment(key_path, _get_value(key_path, values)))}"
        return Problem(f"{_format_key(key_path)}: no such key", valid=format_names(siblings), fix=fix)
    if parents == ["optimizer"] and last_key in _get_optimizer_arguments(values):
        target: KeyPath | None = ("optimizer", "arguments", last_key)
    elif closest := find_closest_name(str(last_key), siblings):
        target = (*parents, closest)
    else:
        target = _find_key_elsewhere(str(key[-1]), values)
    fix = _format_assignment(target, _get_value(key_path, values)) if target else "leave it out"
    return Problem(f"{_format_key(key_path)}: no such key", valid=format_names(siblings), fix=fix)


def _find_choice_with_key(key: str) -> str | None:
    """Return the override of the group of `key` with which it is a key, such as dataset=folder for dataset.root."""
    group = key.split(".")[0]
    variants = [variant for row in describe_keys() if row.key == key for variant in row.variants]
    choices = list_group_choices().get(group, [])
    return next((f"{group}={variant}" for variant in variants if variant in choices), None)


def _find_key_elsewhere(name: str, values: Mapping[str, Any]) -> KeyPath | None:
    """Return the only key of the recipe whose last part is `name` or close to it; None: there is none, or several."""
    keys = list(_iter_keys(Recipe, values, ()))
    names = [str(key[-1]) for key in keys]
    closest = name if name in names else find_closest_name(name, names, min_similarity=0.8)
    matches = [key for key in keys if key[-1] == closest]
    return matches[0] if len(matches) == 1 else None


def _iter_keys(model: type[BaseModel], values: Mapping[str, Any], prefix: KeyPath) -> Iterator[KeyPath]:
    """Yield the keys of `model` and of its sections, in the variants that `values` choose."""
    for name, field in model.model_fields.items():
        yield (*prefix, name)
        section, is_dict = values.get(name), get_origin(field.annotation) is dict
        if isinstance(section, Mapping) and not is_dict and list(iter_models(field.annotation)):
            yield from _iter_keys(_select_model(field.annotation, section), section, (*prefix, name))


def _get_optimizer_arguments(values: Mapping[str, Any]) -> Collection[str]:
    name = resolve_torch_optimizer(str(values["optimizer"].get("name")))
    return read_optimizer_arguments(name) if name else ()


def _flatten(key_path: KeyPath, value: Any) -> tuple[KeyPath, Any]:
    """Return the key and the value that were typed: `traner.epochs=3` is {"epochs": 3} under the key `traner`."""
    while isinstance(value, Mapping) and len(value) == 1:
        ((key, value),) = value.items()
        key_path = (*key_path, key)
    return tuple(map(str, key_path)), value


def _format_assignment(key_path: KeyPath, value: Any) -> str:
    """Return the override that sets the key."""
    key_path, value = _flatten(key_path, value)
    return f"{_format_key(key_path)}={'...' if isinstance(value, Mapping) else format_value(value)}"


def _get_value(key_path: KeyPath, values: Any) -> Any:
    for key in key_path:
        values = values[key]
    return values


def _describe_valid_values(detail: Any) -> str:
    if "expected_tags" in detail.get("ctx", {}):
        return str(detail["ctx"]["expected_tags"])
    text = re.sub(
        r"^(Input|List|String) should (be|have) |^Value error, | after validation, not \d+$", "", detail["msg"]
    )
    return text.removeprefix("a valid ").replace("String should match pattern", "text that matches")


def _format_key(key_path: KeyPath) -> str:
    return ".".join(map(str, key_path))


def _extract_key_path(detail: Any, values: Any) -> KeyPath:
    """Return the path within `values`: pydantic's location also names union members, which no user typed."""
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
    """Return the model in `annotation` whose discriminating field has the value in `values`, else the first."""
    models = list(iter_models(annotation))
    matching_models = [
        model for model in models if all(_is_valid_for_model(model, key, values.get(key)) for key in ("kind", "name"))
    ]
    return (matching_models or models)[0]


def _is_valid_for_model(model: type[BaseModel], key: str, value: Any) -> bool:
    field = model.model_fields.get(key)
    return field is None or get_origin(field.annotation) is not Literal or value in get_args(field.annotation)
