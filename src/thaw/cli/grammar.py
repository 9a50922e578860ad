"""The grammar `thaw VERB [PATHS] key=value --option VALUE`: each verb is declared once, as a `Verb`.

Parsing, `--help`, completion and error messages come from that declaration. click supplies commands, options, types and
completion. The words are split here, so that all problems of a command line are reported together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from thaw.cli.command_words import SplitWords, complete_override, split_words
from thaw.cli.options import Option, describe_valid_values
from thaw.config.errors import Problem, UserError

ANY_RECIPE_KEY = ("*",)
HELP_WIDTH = 100
HELP_FLAGS = ("--help", "-h")
Parameters = Mapping[str, Any]


@dataclass(frozen=True)
class Verb:
    """The declaration of a verb; `@Verb(...)` turns the function below it into the verb's command.

    The function gets one keyword argument for each path and option, and `overrides` if the verb takes recipe keys; it
    returns the exit status. `check` yields problems that concern several options; they are reported with the others.
    """

    name: str
    summary: str  # one line, for `thaw --help`
    examples: tuple[str, ...]
    description: str = ""
    paths: tuple[click.Argument, ...] = ()
    options: tuple[Option, ...] = ()
    recipe_keys: tuple[str, ...] = ()  # the keys that it takes as key=value
    check: Callable[[Parameters], Iterable[Problem]] | None = None
    exit_statuses: str = "0, or 2 if there is something for you to change."
    no_args_is_help: bool = False

    def __call__(self, function: Callable[..., int]) -> VerbCommand:
        return VerbCommand(self, function)


class VerbCommand(click.Command):
    """A verb as click's command."""

    def __init__(self, verb: Verb, function: Callable[..., int]) -> None:
        parameters: list[click.Parameter] = [*verb.paths, *verb.options]
        super().__init__(
            verb.name, callback=function, params=parameters, help=verb.description, short_help=verb.summary
        )
        self.verb = verb

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set the context's parameters.

        Raises:
            UserError: with every unknown option, missing value and wrong value in `args`.
        """
        options_end = args.index("--") if "--" in args else len(args)
        asks_for_help = not set(HELP_FLAGS).isdisjoint(args[:options_end]) or (not args and self.verb.no_args_is_help)
        if asks_for_help and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        words = split_words(self.verb, ctx.command_path, args)
        problems = [*words.problems, *self._set_values(ctx, words), *self._set_paths(ctx, words)]
        if self.verb.recipe_keys:
            ctx.params["overrides"] = words.overrides
        if self.verb.check is not None and not ctx.resilient_parsing:
            problems += self.verb.check(ctx.params)
        if problems and not ctx.resilient_parsing:
            raise UserError("nothing was started.", list(dict.fromkeys(problems)))
        return []

    def _set_values(self, ctx: click.Context, words: SplitWords) -> list[Problem]:
        problems = []
        for option in self.verb.options:
            name = option.parameter_name
            ctx.params[name] = option.default_value
            if name not in words.values:
                continue
            value = words.values[name]
            try:
                ctx.params[name] = option.is_flag or option.type.convert(value.text, option, ctx)
            except click.BadParameter:
                valid = describe_valid_values(option.type)
                problems.append(Problem(value.argument, value.text, valid, value.suggest(option)))
        return problems

    def _set_paths(self, ctx: click.Context, words: SplitWords) -> list[Problem]:
        remaining_paths, problems = list(words.paths), list[Problem]()
        for argument in self.verb.paths:
            assert argument.name is not None
            count = len(remaining_paths) if argument.nargs == -1 else 1
            texts, remaining_paths = remaining_paths[:count], remaining_paths[count:]
            if texts:
                ctx.set_parameter_source(argument.name, ParameterSource.COMMANDLINE)
            elif argument.required:
                fix = f"{ctx.command_path} {self._format_paths()}"
                problems.append(Problem(ctx.command_path, f"no {argument.make_metavar(ctx)}", fix=fix))
            try:
                values = [argument.type.convert(text, argument, ctx) for text in texts]
            except click.BadParameter:
                values, valid = [], describe_valid_values(argument.type)
                problems.append(Problem(" ".join(texts), valid=valid, fix=words.suggest_path(texts, argument)))
            ctx.params[argument.name] = values if argument.nargs == -1 else next(iter(values), None)
        return [*problems, *(words.describe_extra_path(path, self._format_paths()) for path in remaining_paths)]

    def _format_paths(self) -> str:
        return " ".join(str(path.metavar) for path in self.verb.paths)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the usage and the summary."""
        keys = ["[key=value ...]"] if self.verb.recipe_keys == ANY_RECIPE_KEY else []
        keys = keys or [f"[{key}=VALUE]" for key in self.verb.recipe_keys]
        pieces = [self._format_paths(), *keys, "[OPTIONS]" if self.verb.options else ""]
        formatter.write(f"{ctx.command_path} {' '.join(filter(None, pieces))}".rstrip() + "\n\n")
        formatter.write_text(f"{self.verb.summary[0].upper()}{self.verb.summary[1:]}.")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options with their defaults, then the examples and the exit statuses."""
        if self.verb.options:
            with formatter.section("Options"):
                formatter.write_dl([option.get_help_record(ctx) for option in self.verb.options])
        if self.verb.recipe_keys == ANY_RECIPE_KEY:
            formatter.write_paragraph()
            formatter.write_text("key=value: the keys of the recipe, as for python train.py.")
        write_examples(formatter, self.verb.examples)
        formatter.write_text(f"Exit status: {self.verb.exit_statuses}")

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Complete an option or, if the verb takes recipe keys, a group, a choice or a key."""
        if incomplete.startswith("-"):
            items = super().shell_complete(ctx, incomplete)
            return [*items, *(CompletionItem("--help") for _ in range("--help".startswith(incomplete)))]
        if self.verb.recipe_keys != ANY_RECIPE_KEY:
            keys = [f"{key}=" for key in self.verb.recipe_keys]
        else:
            keys = complete_override(incomplete)
        return [CompletionItem(key) for key in keys if key.startswith(incomplete)]


class VerbGroup(click.Group):
    """A verb with sub-verbs: `thaw data fetch`. Without one it prints its help, or runs `default_verb`."""

    def __init__(self, name: str, summary: str, verbs: Iterable[click.Command], default_verb: str = "") -> None:
        commands = {str(verb.name): verb for verb in verbs}
        super().__init__(name, commands, short_help=summary, add_help_option=False)
        self.default_verb = default_verb

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Split `args` into the sub-verb and its words."""
        asks_for_help = bool(args and args[0] in HELP_FLAGS) or (not args and not self.default_verb)
        if asks_for_help and not ctx.resilient_parsing:
            click.echo(ctx.get_help())
            ctx.exit()
        is_option = bool(args) and (args[0].startswith("-") or "=" in args[0])
        if self.default_verb and (not args or is_option) and not ctx.resilient_parsing:
            args = [self.default_verb, *args]
        return super().parse_args(ctx, ["--", *args] if args and not ctx.resilient_parsing else args)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the name of the sub-verb, its command and the words after it.

        Raises:
            UserError: for a verb that does not exist, with the nearest one.
        """
        name, *remaining_args = args
        command = self.get_command(ctx, name)
        if command is None and not ctx.resilient_parsing:
            raise self.build_unknown_verb_error(ctx, name, remaining_args)
        return name, command, remaining_args

    def build_unknown_verb_error(self, ctx: click.Context, name: str, arguments: list[str]) -> UserError:
        """Return the error for a verb that does not exist; `arguments` are the words after it."""
        from thaw.config.errors import find_closest_name, format_names

        names = self.list_commands(ctx)
        fix = f"{ctx.command_path} {find_closest_name(name, names) or '--help'}"
        return UserError("no such verb.", [Problem(f"{ctx.command_path} {name}", valid=format_names(names), fix=fix)])

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of their declaration."""
        return list(self.commands)

    def format_usage(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the usage and, for a verb of `thaw`, its summary."""
        verb = "[VERB]" if self.default_verb else "VERB"
        formatter.write(f"{ctx.command_path} {verb} [PATHS] [key=value ...] [OPTIONS]\n\n")
        formatter.write_text(f"{str(self.short_help)[:1].upper()}{str(self.short_help)[1:]}.")

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the verbs with their summaries, then two examples."""
        commands = {name: self.get_command(ctx, name) for name in self.list_commands(ctx)}
        with formatter.section("Verbs"):
            formatter.write_dl([(name, str(command.short_help)) for name, command in commands.items() if command])
        write_examples(formatter, self.get_examples(ctx))
        formatter.write_text(f"{ctx.command_path} VERB --help describes a verb and its options.")

    def get_examples(self, ctx: click.Context) -> list[str]:
        """Return the first example of the first two sub-verbs."""
        commands = [self.get_command(ctx, name) for name in self.list_commands(ctx)]
        return [command.verb.examples[0] for command in commands if isinstance(command, VerbCommand)][:2]


def write_examples(formatter: click.HelpFormatter, examples: Iterable[str]) -> None:
    """Write the section of example commands, which are never wrapped."""
    formatter.write("\nExamples:\n")
    formatter.write("".join(f"    {example}\n" for example in examples))
    formatter.write_paragraph()
