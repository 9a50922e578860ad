"""Change the recipe of a trained model, or of a run that is resumed: where data and weights are, and the hardware."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from thaw.config.catalog import list_group_choices
from thaw.config.compose import compose_recipe
from thaw.config.dataset_rules import DATASET_RULES, check_correction_files
from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.literal_paths import quote_path
from thaw.config.overrides import get_first_line
from thaw.config.renamed_keys import find_new_key
from thaw.config.schema import Recipe
from thaw.config.suggestions import find_suggestion
from thaw.config.validation import find_problems

OVERRIDABLE_DATA_KEYS = ("dataset", "data", "feature_cache.mode", "feature_cache.gib")
OVERRIDABLE_TRAINER_KEYS = ("batch_size", "accelerator", "precision", "threads", "test_time_augmentation")
OVERRIDABLE_KEYS = (*OVERRIDABLE_DATA_KEYS, *(f"trainer.{name}" for name in OVERRIDABLE_TRAINER_KEYS))
CORRECTION_KEYS = ("exclude", "relabel")
LOCATION_KEYS = (
    *("dataset.root", "data.cache_dir", "data.mirror", "data.store_gib", "backbone.weights"),
    *("data.exclude", "data.relabel"),  # the fingerprint of a resumed run shows whether they are the same
)
MACHINE_KEYS = ("accelerator", "devices", "num_nodes", "threads", "num_workers")
BATCH_KEYS = ("trainer.batch_size", "trainer.accumulate_grad_batches")
RESUME_KEYS = (
    *LOCATION_KEYS,
    "feature_cache.gib",
    "trainer.epochs",
    *BATCH_KEYS,
    *(f"trainer.{name}" for name in MACHINE_KEYS),
)


@dataclass(frozen=True)
class OverridableKeys:
    """The keys of a recipe that may still be changed. `names` include all keys below them; `valid` says them in words,
    and `reason` why the others may not."""

    names: tuple[str, ...]
    valid: str
    reason: str

    def includes(self, key: str) -> bool:
        """Return whether `key` may be changed."""
        return any(key == name or key.startswith(f"{name}.") for name in self.names)


MODEL_KEYS = OverridableKeys(
    OVERRIDABLE_KEYS, f"dataset=NAME, {format_names(OVERRIDABLE_KEYS)}", "no effect on a trained model"
)
RUN_KEYS = OverridableKeys(RESUME_KEYS, format_names(RESUME_KEYS), "a resumed run keeps its recipe")


def with_overrides(recipe: Recipe, overrides: Sequence[str], options: Sequence[str] = ()) -> Recipe:
    """Return `recipe` with the values of `overrides`, written as for train.py. dataset=NAME replaces the data set by
    that preset, found with train.py's `options` (--config-dir DIR).

    Raises:
        UserError: with all problems, also for a key that has no effect on a trained model.
    """
    parsed_overrides, problems = _parse_overrides(overrides, MODEL_KEYS)
    if problems:
        raise UserError("Nothing was started.", problems)
    values = recipe.to_dict()
    if any(override.key_or_group == "dataset" for override in parsed_overrides):
        dataset_overrides = [line for line in overrides if line.split("=", 1)[0].split(".")[0] == "dataset"]
        values["dataset"] = compose_recipe([*options, "strategy=scratch", *dataset_overrides]).to_dict()["dataset"]
        if not any(line.startswith("dataset.split_seed=") for line in overrides):
            values["dataset"]["split_seed"] = recipe.dataset.split_seed
        values["data"] |= dict.fromkeys(CORRECTION_KEYS)  # those of the training are about other images
        parsed_overrides = [
            override for override in parsed_overrides if override.key_or_group.split(".")[0] != "dataset"
        ]
    for override in parsed_overrides:
        _set_value(values, override.key_or_group.split("."), override.value())
    typed_keys = {override.key_or_group for override in parsed_overrides}
    has_corrections = not typed_keys.isdisjoint(f"data.{key}" for key in CORRECTION_KEYS)
    rules = (*DATASET_RULES, check_correction_files) if has_corrections else DATASET_RULES
    if keyed_problems := find_problems(values, rules):
        raise UserError("Nothing was started.", [problem for _, problem in keyed_problems])
    return Recipe.model_validate(values)


def with_resume_overrides(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return `recipe` with the values of `overrides` that a run may be resumed with, written as for train.py.

    Raises:
        UserError: with all problems, also for a key that would change what the run has trained so far.
    """
    parsed_overrides, problems = _parse_overrides(overrides, RUN_KEYS)
    values = recipe.to_dict()
    for override in parsed_overrides:
        _set_value(values, override.key_or_group.split("."), override.value())
    problems += [problem for _, problem in find_problems(values, rules=())]
    if problems:
        raise UserError("Nothing was started.", problems)
    return Recipe.model_validate(values)


def find_resume_problems(overrides: Sequence[str]) -> list[Problem]:
    """Return the problems of `overrides` for any run that is resumed."""
    return _parse_overrides(overrides, RUN_KEYS)[1]


def _parse_overrides(overrides: Sequence[str], keys: OverridableKeys) -> tuple[list[Override], list[Problem]]:
    valid_overrides, problems = list[Override](), list[Problem]()
    for line in (quote_path(line, multirun=False) for line in overrides):
        try:
            (override,) = OverridesParser.create().parse_overrides([line])
        except HydraException as error:
            got = "a key without a value" if "=" not in line else get_first_line(error.__cause__ or error)
            problems.append(Problem(line, got, "key=value"))
            continue
        override_problems = list(_find_override_problems(line, override, keys))
        problems.extend(override_problems)
        valid_overrides.extend([] if override_problems else [override])
    return valid_overrides, problems


def _find_override_problems(line: str, override: Override, keys: OverridableKeys) -> Iterator[Problem]:
    key = override.key_or_group
    if override.is_sweep_override() or override.is_delete():
        yield Problem(line, "several values" if override.is_sweep_override() else "a removal", "key=value")
    elif not keys.includes(key):
        suggestion = find_suggestion(override, lambda group: list_group_choices().get(group, ()))
        is_useful = suggestion and all(keys.includes(target.split("=")[0]) for target in suggestion.fix.split())
        yield suggestion if suggestion and is_useful else _build_key_problem(line, key, keys)


def _build_key_problem(line: str, key: str, keys: OverridableKeys) -> Problem:
    section, _, subkey = (find_new_key(key) or key).partition(".")
    closest_section = find_closest_name(section, ("dataset", "data"))
    got = keys.reason if section in Recipe.model_fields else "no such key"
    if section == "feature_cache" and not subkey:
        fix: str | None = "feature_cache.mode"
    elif closest_section and subkey:
        fix = f"{closest_section}.{subkey}"
    else:
        fix = find_closest_name(key, keys.names)
    value = line.partition("=")[2]
    is_useful = fix is not None and fix != key and keys.includes(fix)
    return Problem(line, got, keys.valid, f"{fix}={value}" if is_useful else "leave it out")


def _set_value(values: dict[str, Any], key_path: Sequence[str], value: Any) -> None:
    *parents, last_key = key_path
    for key in parents:
        nested_values = values.get(key)
        values[key] = nested_values if isinstance(nested_values, dict) else {}
        values = values[key]
    values[last_key] = value
