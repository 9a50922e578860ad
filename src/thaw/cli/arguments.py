"""What the commands of `thaw` have in common: their help, their verbs, their one recipe, their new folders."""

from __future__ import annotations

import math
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from thaw.config.compose import compose_recipe, parse_command
from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.schema import Recipe

Result = TypeVar("Result")


def is_help_request(arguments: Sequence[str]) -> bool:
    """Whether `arguments` are none, or hold -h or --help."""
    return not arguments or not {"--help", "-h"}.isdisjoint(arguments)


def parse_verb(command: str, arguments: Sequence[str], verbs: Iterable[str]) -> tuple[str, list[str]]:
    """The verb that comes first in `arguments`, and what follows it. `command` is as typed: thaw data.

    Raises:
        UserFault: where it is none of `verbs`.
    """
    verb, *remaining_arguments = arguments
    valid = list(verbs)
    if verb not in valid:
        fix = f"{command} {find_closest_name(verb, valid) or '--help'}"
        raise UserError("no such verb.", [Problem(f"{command} {verb}", valid=format_names(valid), fix=fix)])
    return verb, remaining_arguments


def compose_single_recipe(
    command: str, overrides: Sequence[str], subject: str = "recipe", valid: str = "key=value"
) -> Recipe:
    """The recipe of `overrides`. `of` and `valid` are what a fault says that `command` looks at, and takes.

    Raises:
        UserFault: where they ask for a sweep or a printed config, or are wrong.
    """
    parsed_command = parse_command(overrides)
    if parsed_command.multirun or parsed_command.shows_help:
        options = format_names(argument for argument in parsed_command.arguments if argument.startswith("-"))
        raise UserError(f"{command} looks at one {subject}.", [Problem(options, valid=valid)])
    return compose_recipe(overrides)


def generate_output_path(recipe: Recipe, kind: str) -> Path:
    """A path in the recipe's output_dir that no other call names."""
    return Path(recipe.output_dir) / generate_unique_name(f"{kind}_{recipe.dataset.name}")


def generate_unique_name(stem: str) -> str:
    """`stem`, the second, and six digits drawn by chance."""
    return f"{stem}_{time.strftime('%Y-%m-%d_%H-%M-%S')}_{secrets.token_hex(3)}"


def parse_number(text: str, number_type: Callable[[str], float]) -> float:
    """nan where `text` is none of its kind, or without end."""
    try:
        number = number_type(text)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan


def run_interruptible(function: Callable[[], Result]) -> Result:
    """`function()`, ended by Ctrl-C and SIGTERM alike.

    Raises:
        KeyboardInterrupt: where it was.
    """
    from thaw.system import process

    try:
        with process.raise_on_interrupt():
            return function()
    except process.Interrupted:
        raise KeyboardInterrupt from None


CONFIG_DIR_OPTION = "--config-dir"  # a folder of presets of one's own, as train.py takes it


def get_config_dir_arguments(options: Mapping[str, str]) -> list[str]:
    """The part of `options` that composing a recipe needs."""
    return [CONFIG_DIR_OPTION, options[CONFIG_DIR_OPTION]] if CONFIG_DIR_OPTION in options else []


def parse_arguments(
    arguments: Sequence[str], value_options: Collection[str], flags: Collection[str]
) -> tuple[dict[str, str], list[str]]:
    """Options by name, flags with an empty value, and what is left of `arguments`; a lone `-` is no option, and nothing
    behind `--` is.

    Raises:
        UserFault: naming every unknown option, second one, and missing value.
    """
    options: dict[str, str] = {}
    positionals, problems, remaining_arguments = list[str](), list[Problem](), list(arguments)
    known_options = [*value_options, *flags]
    while remaining_arguments:
        argument = remaining_arguments.pop(0)
        name, separator, value = argument.partition("=")
        if argument == "--":
            positionals, remaining_arguments = [*positionals, *remaining_arguments], []
        elif not argument.startswith("-") or argument == "-":
            positionals.append(argument)
        elif name not in known_options or (name in flags and separator):
            closest = find_closest_name(name, known_options)
            suffix = f"{separator}{value}" or (" VALUE" if closest in value_options else "")
            problems.append(
                Problem(
                    argument, "no such option", format_names(known_options), f"{closest}{suffix}" if closest else ""
                )
            )
        elif name in options:
            problems.append(Problem(argument, f"a second {name}", "one", "leave one out"))
        elif name in flags:
            options[name] = ""
        else:
            options[name] = (
                value
                if separator
                else remaining_arguments.pop(0)
                if remaining_arguments and remaining_arguments[0][:2] != "--"
                else ""
            )
            problems.extend([] if options[name] else [Problem(argument, "no value", f"{name} VALUE")])
    if problems:
        raise UserError("nothing was started.", problems)
    return options, positionals
