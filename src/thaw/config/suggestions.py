"""Turn keys of version 0.1 and of other libraries into the overrides to type instead, with the value kept."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, QuotedString
from hydra.errors import HydraException

from thaw.config.catalog import is_finite
from thaw.config.errors import Problem, find_closest_name, format_names, format_value
from thaw.config.guesses import CHOICE_GUESSES, KEY_GUESSES, SECTIONS, VALUE_GUESSES
from thaw.config.literal_paths import is_path_key, quote_path
from thaw.config.renamed_keys import convert_old_value, find_new_key

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

GetChoices = Callable[[str], Sequence[str]]
RENAMED_GOT = "{}, the name in version 0.1"
DIV_FACTOR_KEYS = ("scheduler.div_factor", "scheduler.start_divisor")
DEFAULT_DIV_FACTOR = 25.0  # conf/scheduler/one_cycle.yaml
TOP_LEVEL_KEYS = ("seed", "folds", "fold", "output_dir", "resume")
MAX_WORD_LENGTH = 255
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
    text = _read_text(override)
    if text.startswith("{") or not (targets := find_guess(key, text)):
        return None
    return _build_problem(f"{line.split('=', 1)[0]}={text}: no such key", "", targets, get_choices)


def suggest_for_key(key: str, value: Any) -> Problem | None:
    """Return the problem of an unknown key in a YAML file, as `find_suggestion` does for one on the command line."""
    from thaw.config.catalog import list_group_choices

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


def suggest_for_option(name: str, text: str, closest_option: str | None = None) -> str:
    """Return what to type instead of the unknown option `name` with the value `text`: the key of the recipe that is
    meant, else `closest_option`, else nothing."""
    from thaw.config.catalog import list_group_choices

    choices = list_group_choices()
    key, text = name.lstrip("-").replace("-", "_"), text or "VALUE"
    is_key = key in choices or _is_in_schema(key) or key in TOP_LEVEL_KEYS
    targets = [f"{key}={text}"] if is_key else [] if closest_option else find_guess(key, text)
    if not targets:
        return closest_option or ""
    return _build_problem("", "", targets, lambda group: choices.get(group, ())).fix


def is_key_as_option(name: str) -> bool:
    """Whether the unknown option `name` is a key of the recipe, or one of another library: --epochs."""
    from thaw.config.catalog import list_group_choices

    key = name.lstrip("-").replace("-", "_")
    return bool(key in list_group_choices() or key in TOP_LEVEL_KEYS or _is_in_schema(key) or find_guess(key, "VALUE"))


def suggest_for_word(word: str) -> str:
    """Return what to type instead of `word`, which is no key=value: the data set in the folder `word`, or the choice or
    the network of that name. Empty if it is none."""
    from thaw.config.catalog import list_group_choices

    path = Path(word).expanduser() if len(word) < MAX_WORD_LENGTH else Path()
    if path.name and path.exists():
        is_run = (path / "run.json").is_file() or (path / "sweep.json").is_file()
        return (
            quote_for_shell(f"resume={word}") if is_run else f"dataset=folder {quote_for_shell(f'dataset.root={word}')}"
        )
    for group, choices in list_group_choices().items():
        if _normalize(word) in map(_normalize, choices) or _normalize(word) in CHOICE_GUESSES.get(group, {}):
            return suggest_choice(group, word, choices)
    return _suggest_from_library("backbone", word) or _suggest_from_library("optimizer", word)


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
    text = _read_text(override)
    if not override.is_sweep_override():
        value = override.value()
        new_value = convert_old_value(override.key_or_group, to_plain(value), _find_div_factor(lines))
        text = text if new_value == to_plain(value) else f"{new_value:g}" if isinstance(new_value, float) else new_value
    return _build_problem(line, got, [f"{new_key}={text}"], get_choices)


def _find_div_factor(lines: Sequence[str]) -> float:
    texts = [line.split("=", 1)[1] for line in lines if line.lstrip("+").split("=", 1)[0] in DIV_FACTOR_KEYS]
    try:
        return float(texts[-1]) if texts else DEFAULT_DIV_FACTOR
    except ValueError:
        return DEFAULT_DIV_FACTOR


def quote_for_shell(override: str) -> str:
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

    key, text = target.split("=", 1)
    if choices := get_choices(key):
        names = [] if text.startswith("glob(") else [name.strip() for name in text.split(",")]
        fixes = [suggest_choice(key, name, choices) for name in names if name not in choices]
        return f"{key}: {describe_choices(key, choices)}", fixes[0] or f"{key}=NAME" if fixes else target
    if text == "DIR":  # of dataset.root: for the user to fill in
        return "", target
    valid = f"{key}: {describe_valid_values(key)}" if describe_valid_values(key) else ""
    try:
        override = OverridesParser.create().parse_override(quote_path(target, multirun=False))
    except HydraException:
        return valid, f"{key}=VALUE"
    if override.is_sweep_override() or not valid:
        return valid, quote_for_shell(target)
    better_value = suggest_value(key, to_plain(override.value()))
    return valid, quote_for_shell(f"{key}={better_value}" if better_value else target)


def _read_text(override: Override) -> str:
    """Return the value of `override` as it was typed; a path without Hydra's quotes."""
    value = None if override.is_sweep_override() else override.value()
    if isinstance(value, str) and is_path_key(override.key_or_group):
        return value
    return str(override.input_line).split("=", 1)[1]


def to_plain(value: Any) -> Any:
    """Return `value` of an override without Hydra's class for quoted text."""
    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, list):
        return [to_plain(entry) for entry in value]
    if isinstance(value, Mapping):
        return {to_plain(key): to_plain(entry) for key, entry in value.items()}
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
    from thaw.config.catalog import get_install_command, list_backbones, resolve_torch_optimizer

    if group == "optimizer" and resolve_torch_optimizer(name):
        return f"optimizer=torch optimizer.name={name}"
    if group == "backbone":
        for library in ("torchvision", "timm"):
            if name.split(".")[0] in list_backbones(library):
                return f"backbone={library} backbone.name={name}"
    return get_install_command(group, name)


def suggest_value(key: str, value: Any) -> str:
    """Return what to give `key` instead of `value`: the value that is meant, else VALUE; empty if `value` is valid."""
    from thaw.config.reference import find_fields, iter_literals

    fields = find_fields(key)
    if any(_is_valid(field, value) for field in fields):
        return ""
    text = format_value(value)
    literals = [str(choice) for field in fields for choice in iter_literals(field.annotation)]
    return VALUE_GUESSES.get(key, {}).get(text.lower()) or find_closest_name(text, literals) or "VALUE"


def _is_valid(field: FieldInfo, value: Any) -> bool:
    from pydantic import TypeAdapter, ValidationError

    annotation: Any = Annotated[field.annotation, field]
    try:
        TypeAdapter(annotation).validate_python(value, strict=True)
    except ValidationError:
        return False
    return is_finite(value)
