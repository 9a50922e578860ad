"""`thaw VERB`."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module

import click

from thaw.cli.arguments import run_command
from thaw.cli.grammar import HELP_WIDTH, VerbGroup
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names

# Verb -> the module in thaw.cli and its command. A module is imported when its verb runs, or for `thaw --help`.
VERBS = {
    "train": "train:train",
    "resume": "resume:resume",
    "list": "list_choices:list_choices",
    "inspect": "inspect:inspect",
    "lr-find": "lr_find:lr_find",
    "batch-size": "batch_size:batch_size",
    "data": "data:data",
    "audit": "audit:audit",
    "probe": "probe:probe",
    "compare": "compare:compare",
    "features": "features:features",
    "dashboard": "dashboard:dashboard",
    "cache": "cache:cache",
    "evaluate": "evaluate:evaluate",
    "predict": "predict:predict",
    "explain": "explain:explain",
    "report": "report:report",
    "export": "export:export",
    "submit": "submit:submit",
    "help": "help:help_command",
    "schema": "schema:schema",
    "completion": "completion:completion",
}
EXAMPLES = ("thaw train dataset=hymenoptera strategy=fixed", "thaw evaluate outputs/RUN")
FLAGS = ("--help", "--version")
SUMMARY = "transfer learning for image classification, from a recipe to a run that explains itself"
OLD_FINDERS = {"learning_rate": "lr-find", "batch_size": "batch-size"}
OLD_OPTIONS = {"lowest": "min", "highest": "max"}


class ThawGroup(VerbGroup):
    """All verbs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs in the order of `thaw --help`."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return the command of a verb."""
        if cmd_name not in VERBS:
            return None
        module, attribute = VERBS[cmd_name].split(":")
        command: click.Command = getattr(import_module(f"thaw.cli.{module}"), attribute)
        return command

    def get_examples(self, ctx: click.Context) -> list[str]:
        """Return the two commands to start with."""
        return list(EXAMPLES)

    def build_unknown_verb_error(self, ctx: click.Context, name: str, arguments: list[str]) -> UserError:
        """Return the error for a verb that does not exist; for version 0.1's `find` with the new command."""
        if name == "find":
            fix = _translate_find(arguments)
            problem = Problem(" ".join(["thaw find", *arguments]), valid="thaw lr-find, thaw batch-size", fix=fix)
            return UserError("thaw find has become two verbs.", [problem])
        if name.startswith("-"):
            fix = f"thaw {find_closest_name(name, FLAGS) or '--help'}"
            return UserError("no such option.", [Problem(f"thaw {name}", valid=format_names(FLAGS), fix=fix)])
        return super().build_unknown_verb_error(ctx, name, arguments)


def _translate_find(arguments: Sequence[str]) -> str:
    """Return the command that does what `thaw find ARGUMENTS` did: lowest=4 becomes --min-batch-size 4."""
    verb = OLD_FINDERS.get(arguments[0] if arguments else "", "lr-find")
    quantity = "lr" if verb == "lr-find" else "batch-size"
    words = ["thaw", verb]
    for argument in arguments[1:]:
        key, _, value = argument.partition("=")
        if key in OLD_OPTIONS:
            words += [f"--{OLD_OPTIONS[key]}-{quantity}", value]
        else:
            words += [f"--{key}", value] if key in ("steps", "out") else [argument]
    return " ".join(words)


thaw = ThawGroup("thaw", SUMMARY, [])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line `arguments` (those of the process if None) and return the exit status."""
    if instruction := os.environ.get("_THAW_COMPLETE"):
        from thaw.cli.completion import answer_completion

        return answer_completion(thaw, instruction)
    return run_command(lambda: _run(list(sys.argv[1:] if arguments is None else arguments)))


def _run(arguments: list[str]) -> int:
    if arguments[:1] == ["--version"]:
        from importlib.metadata import version

        print(f"thaw {version('thaw')}")
        return EXIT_SUCCESS
    try:
        with thaw.make_context("thaw", arguments, max_content_width=HELP_WIDTH, terminal_width=HELP_WIDTH) as context:
            status: int = thaw.invoke(context)
            return status
    except click.exceptions.Exit as exit_request:
        return exit_request.exit_code


if __name__ == "__main__":
    sys.exit(main())
