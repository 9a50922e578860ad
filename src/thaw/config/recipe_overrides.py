"""Change the data set and the hardware in the recipe of a trained model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from thaw.config.compose import compose_recipe
from thaw.config.consistency import DATA_RULES
from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.overrides import get_first_line
from thaw.config.presets import list_group_choices
from thaw.config.renamed_keys import find_new_key
from thaw.config.schema import Recipe
from thaw.config.suggestions import find_suggestion
from thaw.config.validation import find_problems

OVERRIDABLE_DATA_KEYS = ("dataset", "data", "feature_cache.mode", "feature_cache.gib")
OVERRIDABLE_TRAINER_KEYS = ("batch_size", "accelerator", "precision", "threads", "test_time_augmentation")
OVERRIDABLE_KEYS = (*OVERRIDABLE_DATA_KEYS, *(f"trainer.{name}" for name in OVERRIDABLE_TRAINER_KEYS))


def with_overrides(recipe: Recipe, overrides: Sequence[str], options: Sequence[str] = ()) -> Recipe:
    """Return `recipe` with the values of `overrides`, written as for train.py. dataset=NAME replaces the data set by
    that preset, found with train.py's `options` (--config-dir DIR).

    Raises:
        UserError: with all problems, also for a key that has no effect on a trained model.
    """
    parsed_overrides, problems = _parse_overrides(overrides)
    if problems:
        raise UserError("Nothing was started.", problems)
    values = recipe.to_dict()
    if any(override.key_or_group == "dataset" for override in parsed_overrides):
        dataset_overrides = [line for line in overrides if line.split("=", 1)[0].split(".")[0] == "dataset"]
        values["dataset"] = compose_recipe([*options, "strategy=scratch", *dataset_overrides]).to_dict()["dataset"]
        parsed_overrides = [
            override for override in parsed_overrides if override.key_or_group.split(".")[0] != "dataset"
        ]
    for override in parsed_overrides:
        _set_value(values, override.key_or_group.split("."), override.value())
    if keyed_problems := find_problems(values, DATA_RULES):
        raise UserError("Nothing was started.", [problem for _, problem in keyed_problems])
    return Recipe.model_validate(values)


def _parse_overrides(overrides: Sequence[str]) -> tuple[list[Override], list[Problem]]:
    valid_overrides, problems = list[Override](), list[Problem]()
    for line in overrides:
        try:
            (override,) = OverridesParser.create().parse_overrides([line])
        except HydraException as error:
            got = "a key without a value" if "=" not in line else get_first_line(error.__cause__ or error)
            problems.append(Problem(line, got, "key=value"))
            continue
        override_problems = list(_find_override_problems(line, override))
        problems.extend(override_problems)
        valid_overrides.extend([] if override_problems else [override])
    return valid_overrides, problems


def _find_override_problems(line: str, override: Override) -> Iterator[Problem]:
    key = override.key_or_group
    if override.is_sweep_override() or override.is_delete():
        yield Problem(line, "several values" if override.is_sweep_override() else "a removal", "key=value")
    elif not _is_overridable(key):
        suggestion = find_suggestion(override, lambda group: list_group_choices().get(group, ()))
        is_useful = suggestion and all(_is_overridable(target.split("=")[0]) for target in suggestion.fix.split())
        yield suggestion if suggestion and is_useful else _build_key_problem(line, key)


def _is_overridable(key: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in OVERRIDABLE_KEYS)


def _build_key_problem(line: str, key: str) -> Problem:
    section, _, subkey = (find_new_key(key) or key).partition(".")
    closest_section = find_closest_name(section, ("dataset", "data"))
    got = "no effect on a trained model" if section in Recipe.model_fields else "no such key"
    if section == "feature_cache" and not subkey:
        fix: str | None = "feature_cache.mode"
    elif closest_section and subkey:
        fix = f"{closest_section}.{subkey}"
    else:
        fix = find_closest_name(key, OVERRIDABLE_KEYS)
    value = line.partition("=")[2]
    valid = f"dataset=NAME, {format_names(OVERRIDABLE_KEYS)}"
    return Problem(line, got, valid, f"{fix}={value}" if fix else "leave it out")


def _set_value(values: dict[str, Any], key_path: Sequence[str], value: Any) -> None:
    *parents, last_key = key_path
    for key in parents:
        nested_values = values.get(key)
        values[key] = nested_values if isinstance(nested_values, dict) else {}
        values = values[key]
    values[last_key] = value
