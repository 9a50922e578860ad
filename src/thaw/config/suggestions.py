"""Turn keys of version 0.1 and of other libraries into the overrides to type instead, with the value kept."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from thaw.config.errors import Problem, find_closest_name, format_names, format_value
from thaw.config.guesses import CHOICE_GUESSES, KEY_GUESSES, SECTIONS
from thaw.config.renamed_keys import convert_old_value, find_new_key

GetChoices = Callable[[str], Sequence[str]]
RENAMED_GOT = "{}, the name in version 0.1"
DIV_FACTOR_KEYS = ("scheduler.div_factor", "scheduler.start_divisor")
DEFAULT_DIV_FACTOR = 25.0  # conf/scheduler/one_cycle.yaml
FREE_CHOICES = {"dataset": "or your own images: dataset=folder with a folder for each class"}


def find_suggestion(override: Override, get_choices: GetChoices, lines: Sequence[str] = ()) -> Problem | None:
    """Return the problem of an override whose key was renamed or is called otherwise elsewhere; None: it is neither.

    `get_choices` gives the choices of a group, or none for a key that is no group. `lines` are all overrides of the
    command: the value of a renamed key can depend on another.
    """
    key, line = override.key_or_group, str(override.input_line)
    if new_key := find_new_key(key):
        return _build_renamed_problem(override, new_key, get_choices, lines)
    if override.is_delete() or get_choices(key):
        return None
    text = line.split("=", 1)[1]
    if text.startswith("{") or not (targets := find_guess(key, text)):
        return None
    return _build_problem(f"{line}: no such key", "", targets, get_choices)


def suggest_for_key(key: str, value: Any) -> Problem | None:
    """Return the problem of an unknown key in a YAML file, as `find_suggestion` does for one on the command line."""
    from thaw.config.presets import list_group_choices

    choices = list_group_choices()
    new_key, text = find_new_key(key), format_value(value)
    if new_key and isinstance(value, Mapping):
        return Problem(key, RENAMED_GOT.format(key), new_key, f"{new_key}: {text}")
    if new_key:
        text = format_value(convert_old_value(key, value, DEFAULT_DIV_FACTOR))
        return _build_problem(key, RENAMED_GOT.format(key), [f"{new_key}={text}"], lambda group: choices.get(group, ()))
    targets = [] if isinstance(value, Mapping) else find_guess(key, text)
    return _build_problem(key, "", targets, lambda group: choices.get(group, ())) if targets else None


def find_guess(key: str, text: str) -> list[str]:
    """Return the overrides, or the advice, that `guesses.py` has for `key` with the value `text`; empty: none."""
    section, _, name = key.rpartition(".")
    guess = KEY_GUESSES.get(key) or (KEY_GUESSES.get(name) if section in SECTIONS else None)
    if guess is None or _is_in_schema(key):
        return []
    template = guess if isinstance(guess, str) else guess.get(text.lower(), guess["*"])
    return [target.format(value=text) for target in shlex.split(template)] if "=" in template else [template]


def _is_in_schema(key: str) -> bool:
    from thaw.config.reference import find_fields
    from thaw.config.schema import Recipe

    return "." in key and key.split(".")[0] in Recipe.model_fields and bool(find_fields(key))


def _build_renamed_problem(override: Override, new_key: str, get_choices: GetChoices, lines: Sequence[str]) -> Problem:
    line = str(override.input_line)
    got = RENAMED_GOT.format(override.key_or_group)
    if override.is_delete():
        deleted_value = line.partition("=")[1:]
        return Problem(line, got, f"~{new_key}", f"~{new_key}{''.join(deleted_value)}")
    text = line.split("=", 1)[1]
    if not override.is_sweep_override():
        value = override.value()
        new_value = convert_old_value(override.key_or_group, _to_plain(value), _find_div_factor(lines))
        text = (
            text if new_value == _to_plain(value) else f"{new_value:g}" if isinstance(new_value, float) else new_value
        )
    return _build_problem(line, got, [f"{new_key}={text}"], get_choices)


def _find_div_factor(lines: Sequence[str]) -> float:
    texts = [line.split("=", 1)[1] for line in lines if line.lstrip("+").split("=", 1)[0] in DIV_FACTOR_KEYS]
    try:
        return float(texts[-1]) if texts else DEFAULT_DIV_FACTOR
    except ValueError:
        return DEFAULT_DIV_FACTOR


def _quote(override: str) -> str:
    """Return `override` as a shell takes it; commas and equals signs need no quotes."""
    return override if not set(override) & set(" {}[]()'\"$*?;&|<>`\\") else shlex.quote(override)


def _build_problem(subject: str, got: str, targets: Sequence[str], get_choices: GetChoices) -> Problem:
    """Return the problem whose fix are the overrides `targets`, each with its value replaced if not valid."""
    if "=" not in targets[0]:
        return Problem(subject, got, fix=targets[0])
    completed_targets = [_complete_target(target, get_choices) for target in targets]
    valid = dict.fromkeys(description for description, _ in completed_targets if description)
    return Problem(subject, got, "; ".join(valid), " ".join(target for _, target in completed_targets))


def _complete_target(target: str, get_choices: GetChoices) -> tuple[str, str]:
    """Return what is valid for the override `target`, and `target` with a valid value, quoted for a shell."""
    from thaw.config.reference import describe_valid_values
    from thaw.config.validation import suggest_value

    key, text = target.split("=", 1)
    if choices := get_choices(key):
        names = [text] if "(" in text else [name.strip() for name in text.split(",")]
        fixes = [suggest_choice(key, name, choices) for name in names if name not in choices and "(" not in name]
        return f"{key}: {describe_choices(key, choices)}", fixes[0] or f"{key}=NAME" if fixes else target
    if text == "DIR":  # of dataset.root: for the user to fill in
        return "", target
    valid = f"{key}: {describe_valid_values(key)}" if describe_valid_values(key) else ""
    try:
        override = OverridesParser.create().parse_override(target)
    except HydraException:
        return valid, f"{key}=VALUE"
    if override.is_sweep_override() or not valid:
        return valid, _quote(target)
    better_value = suggest_value(key, _to_plain(override.value()))
    return valid, _quote(f"{key}={better_value}" if better_value else target)


def _to_plain(value: Any) -> Any:
    """Return `value` of an override without Hydra's class for quoted text."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [_to_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {_to_plain(key): _to_plain(entry) for key, entry in value.items()}
    return value


def describe_choices(group: str, choices: Sequence[str]) -> str:
    """Return the choices of `group` in one line, for data sets with the way to others."""
    return ", ".join(filter(None, [format_names(choices), FREE_CHOICES.get(group, "")]))


def suggest_choice(group: str, name: str, choices: Sequence[str]) -> str:
    """Return what to type instead of `group=name`, which is no choice; empty if nothing is like it.

    In this order: the same name in other letters, the word of another library, a network or optimizer of a library,
    a launcher that must be installed, and the closest name.
    """
    normalized_name = _normalize(name)
    for choice in choices:
        if _normalize(choice) == normalized_name:
            return f"{group}={choice}"
    if guess := CHOICE_GUESSES.get(group, {}).get(normalized_name):
        return guess
    if name == "null":
        return f"~{group} takes none"
    closest = find_closest_name(name, choices)
    return _suggest_from_library(group, name) or (f"{group}={closest}" if closest else "")


def _normalize(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def _suggest_from_library(group: str, name: str) -> str:
    from thaw.config.catalog import list_backbones, resolve_torch_optimizer
    from thaw.config.overrides import get_install_command

    if group == "optimizer" and resolve_torch_optimizer(name):
        return f"optimizer=torch optimizer.name={name}"
    if group == "backbone":
        for library in ("torchvision", "timm"):
            if name.split(".")[0] in list_backbones(library):
                return f"backbone={library} backbone.name={name}"
    return get_install_command(group, name)
