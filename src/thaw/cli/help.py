"""`thaw help [TOPIC]`: explain a key, a group or a choice of the recipe, or a verb. Imports no torch."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import click

from thaw.cli.grammar import HELP_WIDTH, Verb
from thaw.cli.options import AnyWord, path_argument
from thaw.config.catalog import get_config_folder, list_group_choices, read_comment, read_description
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names

if TYPE_CHECKING:
    from thaw.config.reference import KeyDescription

INDENT = "  "


@Verb(
    "help",
    summary="explain a key of the recipe, a group, a choice or a verb",
    examples=("thaw help trainer.epochs", "thaw help strategy", "thaw help strategy=fixed"),
    description="A key: its meaning, type, valid values, default, and the file that sets it. A group: its choices and "
    "keys. group=choice: what the choice is and its values.",
    paths=(path_argument("topic", "[TOPIC]", type=AnyWord(), required=False),),
    no_args_is_help=True,
)
def help_command(topic: str) -> int:
    """Print the explanation of `topic` and return the exit status.

    Raises:
        UserError: if there is no such key, group, choice or verb.
    """
    context = click.get_current_context()
    root = context.find_root()
    assert isinstance(root.command, click.Group)
    command = root.command.get_command(root, topic)
    if command is not None and topic not in list_group_choices():
        print(command.get_help(click.Context(command, info_name=topic, parent=root, terminal_width=HELP_WIDTH)))
        return EXIT_SUCCESS
    print("\n".join(explain(topic)))
    return EXIT_SUCCESS


def explain(topic: str) -> list[str]:
    """Return the lines that explain `topic`: a key, a group, or group=choice.

    Raises:
        UserError: if it is none of them, with the nearest.
    """
    key, equals, value = topic.lstrip("+~").partition("=")
    choices = list_group_choices().get(key, [])
    if choices and equals and value:
        return list(_explain_choice(key, value, choices))
    if choices:
        return list(_explain_group(key, choices))
    if lines := list(_explain_key(key)):
        return lines
    raise UserError("no such key.", [_build_unknown_problem(topic, key)])


def _explain_choice(group: str, name: str, choices: Sequence[str]) -> Iterator[str]:
    if name not in choices:
        from thaw.config.suggestions import describe_choices, suggest_choice

        suggestion = suggest_choice(group, name, choices)
        fix = f"thaw help {suggestion.split()[0]}" if "=" in suggestion else suggestion or f"thaw help {group}"
        problem = Problem(f"thaw help {group}={name}", valid=describe_choices(group, choices), fix=fix)
        raise UserError("no such choice.", [problem])
    file = get_config_folder() / group / f"{name}.yaml"
    yield f"{group}={name}"
    yield from _wrap(read_comment(file))
    yield f"\nconf/{group}/{name}.yaml:"
    lines = file.read_text(encoding="utf-8").splitlines()
    yield from (f"{INDENT}{line}" for line in lines if line and not line.startswith("#"))


def _explain_group(group: str, choices: Sequence[str]) -> Iterator[str]:
    from thaw.config.reference import describe_keys

    yield f"{group}=CHOICE"
    yield from _wrap(_read_group_meaning(group))
    yield "\nChoices:"
    width = max(map(len, choices)) + 2
    for name in choices:
        description = read_description(get_config_folder() / group / f"{name}.yaml")
        yield from textwrap.wrap(
            description, HELP_WIDTH, initial_indent=f"{INDENT}{name:<{width}}", subsequent_indent=" " * (width + 2)
        )
    keys = list(dict.fromkeys(row.key for row in describe_keys() if row.key.startswith(f"{group}.")))
    if keys:
        yield "\nKeys:"
        yield from textwrap.wrap(
            ", ".join(keys), HELP_WIDTH, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False
        )
    yield f"\nthaw help {group}={choices[0]} explains a choice" + (f", thaw help {keys[0]} a key." if keys else ".")


def _read_group_meaning(group: str) -> str:
    from thaw.config.reference import read_field_docs
    from thaw.config.schema import Recipe

    return read_field_docs(Recipe).get(group, "")


def _explain_key(key: str) -> Iterator[str]:
    from thaw.config.reference import NOT_SET, describe_keys

    all_rows = describe_keys()
    for row in (row for row in all_rows if _matches(row.key, key)):
        of_choices = f" ({', '.join(row.variants)})" if row.variants else ""
        yield f"{row.key}{of_choices}"
        yield from _wrap(row.meaning)
        yield f"{INDENT}type:     {row.type}"
        nested_keys = dict.fromkeys(other.key for other in all_rows if other.key.startswith(f"{row.key}."))
        if nested_keys:
            yield f"{INDENT}keys:     {', '.join(nested_keys)}"
        if row.range:
            yield f"{INDENT}valid:    {row.range}"
        if row.default:
            yield f"{INDENT}default:  {row.default}"
        yield f"{INDENT}set in:   {_find_file(row)}"
        if row.default and not nested_keys:
            yield f"{INDENT}to set:   {key}={'VALUE' if row.default == NOT_SET else row.default}"


def _matches(pattern: str, key: str) -> bool:
    """Whether `pattern`, in which NAME stands for any name, is `key`."""
    from thaw.config.reference import DICT_KEY

    parts, names = pattern.split("."), key.split(".")
    return len(parts) == len(names) and all(part in (DICT_KEY, name) for part, name in zip(parts, names, strict=True))


def _find_file(row: KeyDescription) -> str:
    """Return the file of `conf/` that sets the key."""
    group = row.key.split(".")[0]
    choices = list_group_choices().get(group, [])
    if not choices:
        return "conf/config.yaml"
    variant = next((name for name in row.variants if name in choices), "")
    return f"conf/{group}/{variant or 'CHOICE'}.yaml; thaw help {group} lists the choices"


def _wrap(text: str) -> list[str]:
    return textwrap.wrap(text, HELP_WIDTH, initial_indent=INDENT, subsequent_indent=INDENT)


def _build_unknown_problem(topic: str, key: str) -> Problem:
    from thaw.cli.main import VERBS
    from thaw.config.reference import describe_keys
    from thaw.config.suggestions import find_guess

    keys = list(dict.fromkeys(row.key for row in describe_keys()))
    same_name = [name for name in keys if name.rpartition(".")[2] == key.rpartition(".")[2]]
    guesses = [target.partition("=")[0] for target in find_guess(key, "VALUE") if "=" in target]
    candidates = [*list_group_choices(), *VERBS, *keys]
    closest = next(iter([*guesses[-1:], *same_name]), None) or find_closest_name(key, candidates)
    valid = f"a key of the recipe, a verb, or a group: {format_names(list_group_choices())}"
    return Problem(
        f"thaw help {topic}", "no key, group or verb", valid, f"thaw help {closest}" if closest else "thaw list"
    )
