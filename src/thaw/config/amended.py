"""The recipe of something trained, with another data set or hardware to be used on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from thaw.config.command import recipe_for
from thaw.config.consistency import DATA_RULES
from thaw.config.faults import Fault, UserFault, listing, nearest
from thaw.config.overrides import first_line
from thaw.config.schema import Recipe
from thaw.config.validation import faults_in

OPEN = ("dataset", "data", "cache.mode", "cache.gib")
OF_TRAINER = ("batch_size", "accelerator", "precision", "threads", "test_time_augmentation")
KEYS = (*OPEN, *(f"trainer.{name}" for name in OF_TRAINER))


def amended(recipe: Recipe, overrides: Sequence[str], options: Sequence[str] = ()) -> Recipe:
    """`recipe` with the values of `overrides`, as train.py takes them; dataset=NAME puts that preset in the place of
    the recipe's data set, by train.py's `options`.

    Raises:
        UserFault: with all faults; for what a finished training has no use for, too.
    """
    parsed, faults = _parsed(overrides)
    if faults:
        raise UserFault("nothing was started.", faults)
    values = recipe.plain()
    if any(one.key_or_group == "dataset" for one in parsed):
        of_data = [line for line in overrides if line.split("=", 1)[0].split(".")[0] == "dataset"]
        values["dataset"] = recipe_for([*options, "strategy=scratch", *of_data]).plain()["dataset"]
        parsed = [one for one in parsed if one.key_or_group.split(".")[0] != "dataset"]
    for one in parsed:
        _set(values, one.key_or_group.split("."), one.value())
    if found := faults_in(values, DATA_RULES):
        raise UserFault("nothing was started.", [fault for _, fault in found])
    return Recipe.model_validate(values)


def _parsed(overrides: Sequence[str]) -> tuple[list[Override], list[Fault]]:
    sound, faults = list[Override](), list[Fault]()
    for line in overrides:
        try:
            (override,) = OverridesParser.create().parse_overrides([line])
        except HydraException as error:
            got = "a key without a value" if "=" not in line else first_line(error.__cause__ or error)
            faults.append(Fault(line, got, "key=value"))
            continue
        found = list(_faults(line, override))
        faults.extend(found)
        sound.extend([] if found else [override])
    return sound, faults


def _faults(line: str, override: Override) -> Iterator[Fault]:
    key = override.key_or_group
    if override.is_sweep_override() or override.is_delete():
        yield Fault(line, "several values" if override.is_sweep_override() else "a removal", "key=value")
    elif not any(key == one or key.startswith(f"{one}.") for one in KEYS):
        group, _, rest = key.partition(".")
        near_group = nearest(group, ("dataset", "data"))
        got = "the training is over" if group in Recipe.model_fields else "no such key"
        fix = f"{near_group}.{rest}" if near_group and rest else nearest(key, KEYS)
        value = line.partition("=")[2]
        yield Fault(line, got, f"dataset=NAME, {listing(KEYS)}", f"{fix}={value}" if fix else "leave it out")


def _set(values: dict[str, Any], path: Sequence[str], value: Any) -> None:
    *parents, last = path
    for key in parents:
        inner = values.get(key)
        values[key] = inner if isinstance(inner, dict) else {}
        values = values[key]
    values[last] = value
