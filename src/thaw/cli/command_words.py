"""Split the words of a command line into options, paths and overrides of recipe keys, and complete overrides."""

from __future__ import annotations

import types
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol, Union, get_args, get_origin

import click

from thaw.cli.options import AnyWord, Option, format_value
from thaw.config.catalog import list_group_choices
from thaw.config.errors import Problem, find_closest_name, format_names

MULTIRUN_FLAGS = ("-m", "--multirun")


class Declaration(Protocol):
    """The words that a verb takes."""

    @property
    def options(self) -> Sequence[Option]:
        """Its options."""

    @property
    def paths(self) -> Sequence[click.Argument]:
        """Its paths."""

    @property
    def recipe_keys(self) -> Sequence[str]:
        """The keys that it takes as key=value."""


@dataclass(frozen=True)
class OptionValue:
    """The text of an option's value, and how the user wrote it: `argument` is `--top 3`, `--top=3` or `top=3`."""

    name: str
    text: str
    argument: str

    def suggest(self, option: Option) -> str:
        """Return the option with a valid value, written as the user wrote it."""
        if isinstance(option.type, click.Choice):
            valid_text = find_closest_name(self.text, map(str, option.type.choices)) or str(option.type.choices[0])
        else:
            has_default = option.default_value is not None
            valid_text = format_value(option.default_value) if has_default else str(option.metavar)
        return self.argument.removesuffix(self.text) + valid_text


@dataclass
class SplitWords:
    """The words of a command line by kind. `values` maps the parameter names of options to their values."""

    command: str
    values: dict[str, OptionValue] = field(default_factory=dict)
    paths: list[str] = field(default_factory=list)
    overrides: list[str] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)

    def suggest_path(self, texts: Sequence[str], argument: click.Argument) -> str:
        """Return the command with the valid path nearest to the wrong one."""
        choices = getattr(argument.type, "choices", ())
        closest = find_closest_name(texts[0], map(str, choices))
        return f"{self.command} {closest}" if closest else ""

    def describe_extra_path(self, path: str, valid_paths: str) -> Problem:
        """Return the problem of a path that the verb has no place for."""
        valid = valid_paths or "options only"
        return Problem(path, "one argument too many", valid, f"{self.command} {valid_paths}".strip())


def split_words(verb: Declaration, command: str, arguments: Sequence[str]) -> SplitWords:
    """Split `arguments`, the words after `command`; a lone `-` is a path, and so is every word after `--`."""
    words, remaining = SplitWords(command), list(arguments)
    while remaining:
        argument = remaining.pop(0)
        name = argument.partition("=")[0]
        if argument == "--":
            words.paths += remaining
            break
        if argument.startswith("-") and argument != "-":
            _add_option(verb, argument, remaining, words)
        elif (option := _find_keyword_option(verb, argument)) is not None:
            _add_value(option, name, argument.partition("=")[2], argument, words)
        elif _is_path(verb, argument, words):
            words.paths.append(argument)
        else:
            _add_override(verb, argument, words)
    return words


def _add_option(verb: Declaration, argument: str, remaining: list[str], words: SplitWords) -> None:
    name, separator, text = argument.partition("=")
    option = _options_by_name(verb).get(name)
    if option is None or (option.is_flag and separator):
        has_value = remaining and not separator and not remaining[0].startswith("-") and "=" not in remaining[0]
        if option is None and has_value and _suggest_key(verb, name, ""):
            argument = f"{argument} {remaining.pop(0)}"  # a key of the recipe as an option: --epochs 10
        words.problems.append(_build_unknown_option_problem(verb, argument))
    elif option.is_flag:
        _add_value(option, name, "true", argument, words)
    elif separator:
        _add_value(option, name, text, argument, words)
    else:
        text = remaining.pop(0) if remaining and not remaining[0].startswith("--") else ""
        _add_value(option, name, text, f"{argument} {text}".rstrip(), words)


def _add_value(option: Option, name: str, text: str, argument: str, words: SplitWords) -> None:
    if not text:
        fix = f"{name} VALUE" if name.startswith("-") else f"{name}=VALUE"
        words.problems.append(Problem(argument, "no value", f"{name} {option.metavar or 'VALUE'}", fix))
    elif option.parameter_name in words.values:
        words.problems.append(Problem(argument, f"a second {name}", "one", "leave one out"))
    else:
        words.values[option.parameter_name] = OptionValue(name, text, argument)


def _options_by_name(verb: Declaration) -> dict[str, Option]:
    return {name: option for option in verb.options for name in option.opts}


def _find_keyword_option(verb: Declaration, argument: str) -> Option | None:
    """Return the option that NAME=VALUE sets: one may be written so unless a key of the recipe has its name."""
    name, separator, _ = argument.partition("=")
    option = _options_by_name(verb).get(f"--{name.replace('_', '-')}")
    if not separator or option is None or option.is_flag:
        return None
    return None if verb.recipe_keys and name in _list_recipe_fields() else option


def _list_recipe_fields() -> list[str]:
    from thaw.config.catalog import list_group_choices
    from thaw.config.schema import Recipe

    return [*Recipe.model_fields, *list_group_choices(), "hydra"]


def _is_path(verb: Declaration, argument: str, words: SplitWords) -> bool:
    """A run's folder may have = in its name (0_seed=1)."""
    key, separator, _ = argument.partition("=")
    has_room = any(path.nargs == -1 for path in verb.paths) or len(words.paths) < len(verb.paths)
    if separator:
        takes_any_word = any(isinstance(path.type, AnyWord) for path in verb.paths)
        return has_room and (takes_any_word or "/" in key or Path(argument).expanduser().exists())
    return has_room or not verb.recipe_keys


def _add_override(verb: Declaration, argument: str, words: SplitWords) -> None:
    key, _, text = argument.partition("=")
    if verb.recipe_keys == ("*",):
        problem = _find_misspelt_option(verb, argument)
        words.problems += [problem] if problem else []
        words.overrides += [] if problem else [argument]
    elif key in verb.recipe_keys and text:
        words.overrides.append(argument)
    else:
        valid_names = [*verb.recipe_keys, *_list_keyword_names(verb)]
        closest = find_closest_name(key, valid_names)
        got = "no value" if key in valid_names else "no such setting"
        fix = f"{closest}={text or 'VALUE'}" if closest else f"{words.command} --help"
        words.problems.append(Problem(argument, got, format_names(f"{name}=" for name in valid_names), fix))


def _find_misspelt_option(verb: Declaration, argument: str) -> Problem | None:
    """Return the problem of a key that no recipe has and that is like the name of an option."""
    key, separator, text = argument.partition("=")
    names = _list_keyword_names(verb)
    closest = find_closest_name(key, names)
    if closest is None or not separator or key.split(".")[0] in _list_recipe_fields():
        return None
    valid = f"{format_names(names)}, and the keys of the recipe"
    return Problem(argument, f"no setting {key}", valid, f"{closest}={text or 'VALUE'}")


def _list_keyword_names(verb: Declaration) -> list[str]:
    return [name.removeprefix("--").replace("-", "_") for name in _list_value_options(verb.options)]


def _list_value_options(options: Iterable[Option]) -> list[str]:
    return [name for option in options if not option.is_flag for name in option.opts]


def _build_unknown_option_problem(verb: Declaration, argument: str) -> Problem:
    name, separator, text = argument.partition("=") if "=" in argument else argument.partition(" ")
    if name in MULTIRUN_FLAGS and verb.recipe_keys:
        return Problem(argument, "no such option: a sweep", "one recipe", "leave it out")
    options = [option.opts[0] for option in verb.options]
    closest = find_closest_name(name, options)
    has_value = closest in _list_value_options(verb.options)
    suffix = f"{separator}{text}" if separator and has_value else " VALUE" if has_value else ""
    fix = _suggest_key(verb, name, text) or (f"{closest}{suffix}" if closest else "")
    return Problem(argument, "no such option", format_names(options) or "none", fix)


def _suggest_key(verb: Declaration, name: str, text: str) -> str:
    """Return the override that is meant by the option `name`; empty if it is no key of a recipe."""
    if verb.recipe_keys != ("*",) or find_closest_name(name, [option.opts[0] for option in verb.options], 0.8):
        return ""
    from thaw.config.suggestions import is_key_as_option, suggest_for_option  # imports Hydra

    return suggest_for_option(name, text) if is_key_as_option(name) else ""


def complete_override(incomplete: str) -> list[str]:
    """Return the overrides that begin with `incomplete`: groups, their choices, and dotted keys of the recipe."""
    marker = incomplete[: len(incomplete) - len(incomplete.lstrip("+~"))]
    text = incomplete.removeprefix(marker)
    groups = list_group_choices()
    group, separator, _ = text.partition("=")
    if separator:
        return [f"{marker}{group}={choice}" for choice in groups.get(group, []) if f"{group}={choice}".startswith(text)]
    return [f"{marker}{key}" for key in _iter_keys(text, list(groups)) if key.startswith(text)]


def _iter_keys(text: str, groups: list[str]) -> Iterator[str]:
    yield from (f"{group}=" for group in groups)
    if "." not in text:
        yield from ("seed=", "output_dir=", "data.", *(f"{group}." for group in groups if group == text))
        return
    from thaw.config.schema import Recipe

    parts = text.split(".")
    for model in _find_models(Recipe, parts[:-1]):
        for name, info in model.model_fields.items():
            has_keys = bool(list(_iter_models(info.annotation)))
            yield ".".join([*parts[:-1], f"{name}{'.' if has_keys else '='}"])


def _find_models(model: Any, path: list[str]) -> list[Any]:
    """Return the models that describe the keys below the dotted `path`: several if the kind decides."""
    models = [model]
    for name in path:
        fields = [candidate.model_fields.get(name) for candidate in models]
        models = [nested for field in fields if field is not None for nested in _iter_models(field.annotation)]
    return models


def _iter_models(annotation: Any) -> Iterator[Any]:
    """Models of the schema in `annotation`, which may be optional, a union, or a mapping of names to models."""
    if hasattr(annotation, "model_fields"):
        yield annotation
    elif isinstance(annotation, types.UnionType) or get_origin(annotation) in (Union, Annotated):
        for argument in get_args(annotation):
            yield from _iter_models(argument)
