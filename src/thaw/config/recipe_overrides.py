"""The recipe of something trained, with another data set or hardware to be used on."""

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
from thaw.config.schema import Recipe
from thaw.config.validation import find_problems

OVERRIDABLE_DATA_KEYS = ("dataset", "data", "feature_cache.mode", "feature_cache.gib")
OVERRIDABLE_TRAINER_KEYS = ("batch_size", "accelerator", "precision", "threads", "test_time_augmentation")
OVERRIDABLE_KEYS = (*OVERRIDABLE_DATA_KEYS, *(f"trainer.{name}" for name in OVERRIDABLE_TRAINER_KEYS))


def with_overrides(recipe: Recipe, overrides: Sequence[str], options: Sequence[str] = ()) -> Recipe:
    """`recipe` with the values of `overrides`, as train.py takes them; dataset=NAME puts that preset in the place of
    the recipe's data set, by train.py's `options`.

    Raises:
        UserFault: with all faults; for what a finished training has no use for, too.
    """
    parsed_overrides, problems = _parse_overrides(overrides)
    if problems:
        raise UserError("nothing was started.", problems)
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
        raise UserError("nothing was started.", [problem for _, problem in keyed_problems])
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
    elif not any(
        key == overridable_key or key.startswith(f"{overridable_key}.") for overridable_key in OVERRIDABLE_KEYS
    ):
        group, _, subkey = key.partition(".")
        closest_group = find_closest_name(group, ("dataset", "data"))
        got = "the training is over" if group in Recipe.model_fields else "no such key"
        fix = f"{closest_group}.{subkey}" if closest_group and subkey else find_closest_name(key, OVERRIDABLE_KEYS)
        value = line.partition("=")[2]
        yield Problem(
            line, got, f"dataset=NAME, {format_names(OVERRIDABLE_KEYS)}", f"{fix}={value}" if fix else "leave it out"
        )


def _set_value(values: dict[str, Any], key_path: Sequence[str], value: Any) -> None:
    *parents, last_key = key_path
    for key in parents:
        nested_values = values.get(key)
        values[key] = nested_values if isinstance(nested_values, dict) else {}
        values = values[key]
    values[last_key] = value
