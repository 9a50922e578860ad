"""Parse a command line of train.py: Hydra's options, and the overrides of the recipe."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NoReturn

from hydra._internal.utils import get_args_parser

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.literal_paths import quote_path
from thaw.config.suggestions import suggest_for_option

CONFIG_NAME = "config"
HELPFUL_OPTIONS = ("--multirun", "--config-dir", "--cfg", "--resolve", "--package", "--config-name", "--info", "--help")
# Hydra's options that do something else than they say here, and what to type instead.
REFUSED_OPTIONS = {
    "config_path": ("--config-path", "--config-dir DIR adds a folder with your own presets"),
    "experimental_rerun": ("--experimental-rerun", "thaw train resume=DIR continues a run"),
    "shell_completion": ("--shell-completion", "thaw completion bash, or zsh, or fish"),
}


@dataclass(frozen=True)
class Command:
    """A parsed command line. `arguments` are all words, options first; `shows_help` is true if it prints help or the
    configuration and trains nothing. `trains` is false if the recipe is meant for something else than a training."""

    arguments: tuple[str, ...]
    overrides: tuple[str, ...]
    multirun: bool
    shows_help: bool
    config_dir: str | None
    config_name: str
    trains: bool = True

    @property
    def has_shipped_config(self) -> bool:
        """Whether the recipe without overrides is the one in `conf/`, which is valid."""
        return self.config_dir is None and self.config_name == CONFIG_NAME


def parse_command(arguments: Sequence[str]) -> Command:
    """Parse a command line of train.py.

    Raises:
        UserError: for an option that does not exist or that thaw does not have.
    """
    sorted_arguments = sorted(arguments, key=_is_override)  # argparse accepts no options between overrides
    namespace = _parse_options(sorted_arguments)
    if problems := [*_find_refused_options(namespace), *_find_conflicting_options(namespace)]:
        raise UserError("Nothing was started.", problems)
    quoted_lines = {line: quote_path(line, namespace.multirun) for line in namespace.overrides}
    return Command(
        tuple(quoted_lines.get(argument, argument) for argument in sorted_arguments),
        tuple(quoted_lines[line] for line in namespace.overrides),
        namespace.multirun,
        bool(namespace.help or namespace.hydra_help or namespace.cfg or namespace.info),
        namespace.config_dir,
        (namespace.config_name or CONFIG_NAME).removesuffix(".yaml"),
    )


def _is_override(argument: str) -> bool:
    return not argument.startswith("-") and ("=" in argument or argument.startswith("~"))


def _parse_options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = get_args_parser()
    parser.allow_abbrev = False
    known_options = [name for action in parser._actions for name in action.option_strings]
    if problems := list(_find_unknown_options(arguments, known_options)):
        raise UserError("Nothing was started.", problems)

    def raise_user_error(message: str) -> NoReturn:
        fix = "python train.py --help, or thaw train --help"
        raise UserError(
            "Nothing was started.", [Problem(" ".join(arguments), message, format_names(HELPFUL_OPTIONS), fix)]
        )

    parser.error = raise_user_error  # type: ignore[method-assign]  # argparse would print Hydra's usage and exit
    return parser.parse_args(list(arguments))


def _find_unknown_options(arguments: Sequence[str], known_options: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for each option that Hydra does not have: often a key of the recipe, written as in other
    programs."""
    for index, argument in enumerate(arguments):
        name, equals, text = argument.partition("=")
        is_short_option = argument[:2] in known_options  # argparse reads -mx as -m x
        if not argument.startswith("-") or argument in ("-", "--") or name in known_options or is_short_option:
            continue
        following = arguments[index + 1] if index + 1 < len(arguments) else ""
        if not equals and following and not following.startswith("-") and "=" not in following:
            argument, text = f"{argument} {following}", following
        fix = suggest_for_option(name, text, closest_option=find_closest_name(name, HELPFUL_OPTIONS, 0.8))
        yield Problem(argument, "no such option", f"key=value, {format_names(HELPFUL_OPTIONS)}", fix)


def _find_refused_options(namespace: argparse.Namespace) -> Iterator[Problem]:
    for attribute, (option, fix) in REFUSED_OPTIONS.items():
        if value := getattr(namespace, attribute):
            yield Problem(
                option if value is True else f"{option} {value}", "an option that thaw does not have", fix=fix
            )


def _find_conflicting_options(namespace: argparse.Namespace) -> Iterator[Problem]:
    shown = [
        f"--{name.replace('_', '-')}" for name in ("cfg", "info", "hydra_help", "help") if getattr(namespace, name)
    ]
    if namespace.multirun and shown:
        yield Problem(f"-m {shown[0]}", "a sweep, and one thing to print", f"{shown[0]} for one recipe", "leave -m out")
    if len(shown) > 1:
        yield Problem(" ".join(shown), "several things to print", "one of them", f"leave {shown[1]} out")
    if namespace.resolve and not namespace.cfg:
        yield Problem("--resolve", "nothing to resolve", "with --cfg job", "--cfg job --resolve")
