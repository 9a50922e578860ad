"""Check the overrides of a command line one by one: whether each can be parsed and names an existing choice."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from thaw.config.catalog import LAUNCHER_GROUPS, get_install_command
from thaw.config.errors import Problem, find_closest_name, format_names, format_value
from thaw.config.preset_files import PresetFolder
from thaw.config.suggestions import describe_choices, find_suggestion, suggest_choice, suggest_for_word


@dataclass(frozen=True)
class GroupChoices:
    """The choices of each group, each asked for once: Hydra copies its search path for every answer (15 ms)."""

    config_loader: ConfigLoader
    preset_folder: PresetFolder | None = None
    choices_by_group: dict[str, list[str]] = field(default_factory=dict)

    def get_choices(self, group: str) -> list[str]:
        """Return the choices of `group`, none if it is no group. A key with a dot never is one."""
        if group not in self.choices_by_group:
            own_choices = self.preset_folder.list_choices(group) if self.preset_folder and "." not in group else []
            choices = [] if "." in group else self.config_loader.get_group_options(group)
            self.choices_by_group[group] = sorted({*choices, *own_choices})
        return self.choices_by_group[group]


def parse_overrides(
    lines: Sequence[str], multirun: bool, group_choices: GroupChoices
) -> tuple[list[Override], list[Problem]]:
    """Return the overrides that can be composed and the problems of the others.

    The keys of a group depend on its choice, so they are left out while the choice is not valid.
    """
    valid_overrides, problems, invalid_groups = list[Override](), list[Problem](), set[str]()
    parser = OverridesParser.create(config_loader=group_choices.config_loader)
    for line in lines:
        try:
            (override,) = parser.parse_overrides([line])  # unlike parse_override it lets glob(*) know the choices
        except HydraException as error:
            problems.append(_build_syntax_problem(line, error))
            continue
        if suggestion := find_suggestion(override, group_choices.get_choices, lines):
            needs_sweep = override.is_sweep_override() and not multirun
            problems.append(replace(suggestion, fix=f"-m {suggestion.fix}") if needs_sweep else suggestion)
            invalid_groups.update(_list_groups_in_fix(suggestion, group_choices))
            continue
        override_problems = list(_find_override_problems(override, multirun, group_choices))
        problems.extend(override_problems)
        valid_overrides.extend([] if override_problems else [override])
        invalid_groups.update([override.key_or_group] if override_problems else [])
    remaining_overrides = [
        override for override in valid_overrides if override.key_or_group.split(".")[0] not in invalid_groups
    ]
    return remaining_overrides, problems


def _list_groups_in_fix(suggestion: Problem, group_choices: GroupChoices) -> list[str]:
    keys = [target.split("=", 1)[0] for target in suggestion.fix.split() if "=" in target]
    return [key for key in keys if group_choices.get_choices(key)]


def _build_syntax_problem(line: str, error: HydraException) -> Problem:
    if "=" not in line:
        return Problem(line, "a word without =", "key=value", suggest_for_word(line) or _suggest_key(line))
    value = line.split("=", 1)[1]
    got = f"{value!r}: {get_first_line(error.__cause__ or error)}" if value else "nothing after ="
    return Problem(line, got, "key=value", "quote a value that holds spaces or = , [ ] { }: 'key=\"VALUE\"'")


def _suggest_key(word: str) -> str:
    from thaw.config.catalog import list_group_choices
    from thaw.config.schema import Recipe

    if "." in word and all(part.isidentifier() for part in word.split(".")):
        return f"{word}=VALUE"
    key = find_closest_name(word, [*list_group_choices(), *Recipe.model_fields])
    return f"{key}=VALUE" if key else "python train.py --help lists groups and choices"


def _find_override_problems(override: Override, multirun: bool, group_choices: GroupChoices) -> Iterator[Problem]:
    key, is_removed = override.key_or_group, override.is_delete() and override.value() is None
    choices = [] if is_removed else group_choices.get_choices(key)
    if override.is_sweep_override() and not multirun:
        yield Problem(
            str(override.input_line),
            "several values",
            "one value, or a sweep",
            f"put -m in front: -m {override.input_line}",
        )
    elif choices and (override.is_interval_sweep() or override.is_range_sweep()):
        yield Problem(str(override.input_line), "numbers", format_names(choices))
    elif choices:
        values = list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]
        if not values:  # a sweep over nothing would end at once without an error
            yield Problem(str(override.input_line), "a pattern that matches no choice", format_names(choices))
        yield from _find_unknown_choices(key, values, choices)
    elif not choices and not override.is_sweep_override() and "." not in key and isinstance(override.value(), str):
        yield from _find_unknown_group(key, str(override.value()), group_choices.config_loader)


def _find_unknown_choices(group: str, values: Sequence[Any], choices: list[str]) -> Iterator[Problem]:
    for value in values:
        chosen_values = value if isinstance(value, list) else [value]
        for name in map(format_value, chosen_values):
            if name not in choices:
                got = f"{name!r}, no choice of the group {group}"
                fix = suggest_choice(group, name, choices)
                yield Problem(f"{group}={name}", got, describe_choices(group, choices), fix)


def _find_unknown_group(key: str, value: str, config_loader: ConfigLoader) -> Iterator[Problem]:
    from thaw.config.schema import Recipe

    groups = [group for group in config_loader.list_groups("") if group != "hydra"]
    closest = find_closest_name(key, groups)
    if key not in Recipe.model_fields and closest:
        yield Problem(f"{key}={value}: no such group", valid=format_names(groups), fix=f"{closest}={value}")


def force_override(line: str, group_choices: GroupChoices) -> str:
    """Return `line` with `++`, which sets a value even if Hydra has no such key: the schema reports all unknown keys at
    once, and a key can be set below one that is null (trainer.early_stopping.patience=5)."""
    key = line.lstrip("+").split("=", 1)[0]
    is_value = (
        not line.startswith("~") and not key.startswith("hydra") and not group_choices.get_choices(key.split("@")[0])
    )
    return f"++{line.lstrip('+')}" if is_value else line


def get_first_line(error: BaseException) -> str:
    """Return the first line of the message of `error`."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def detect_missing_launcher(message: str) -> Problem | None:
    """Return the problem if Hydra's `message` is about a launcher that is not installed."""
    match = re.search(r"hydra/launcher/(\w+)", message)
    fix = get_install_command("launcher", match[1]) if match else ""
    return Problem(f"launcher={match[1]}", "not installed", fix=fix) if match and fix else None


def find_unused_launchers(overrides: Sequence[Override]) -> Iterator[Problem]:
    """Yield a problem for each launcher in the overrides of a single run, which needs none."""
    for override in overrides:
        if override.key_or_group in LAUNCHER_GROUPS and not override.is_delete():
            yield Problem(str(override.input_line), "a single run", "a sweep", "put -m in front")
