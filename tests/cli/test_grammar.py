"""One declaration for each verb: its help, its examples, its options and their errors."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import click
import pytest

from thaw.cli.command_words import SplitWords, split_words
from thaw.cli.grammar import ANY_RECIPE_KEY, Verb, VerbCommand, VerbGroup
from thaw.cli.main import main, thaw
from thaw.cli.options import Option, out_option, path_argument
from thaw.config.catalog import list_group_choices
from thaw.config.errors import UserError

SLOW_MODULES = {"torch", "hydra", "omegaconf", "pydantic", "rich", "yaml", "numpy", "matplotlib"}


def iter_commands(group: click.Group, prefix: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every verb and sub-verb with its words."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield (*prefix, name), command
        if isinstance(command, click.Group):
            yield from iter_commands(command, (*prefix, name))


COMMANDS = dict(iter_commands(thaw))
VERBS = {words: command for words, command in COMMANDS.items() if isinstance(command, VerbCommand)}
every_command = pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
every_verb = pytest.mark.parametrize("words", VERBS, ids=" ".join)
EXAMPLE_PATTERN = re.compile(r"^ {4,}((?:thaw|python train\.py|source) .*?)(?:   +.*)?$", re.MULTILINE)


def read_help(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*words, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]], ids=["nothing", "--help", "-h"])
def test_thaw_lists_every_verb_with_its_summary(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    for words, command in COMMANDS.items():
        if len(words) == 1:
            assert any(line.split() == [words[0], *str(command.short_help).split()] for line in lines)


@every_command
def test_help_shows_usage_and_two_examples(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    text = read_help(words, capsys)
    assert len(EXAMPLE_PATTERN.findall(text)) >= 2
    if words != ("train",):  # its help is that of train.py
        assert text.startswith(f"thaw {' '.join(words)} ")
        assert max(map(len, text.splitlines())) <= 120


@every_command
def test_every_example_can_be_parsed(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for example in EXAMPLE_PATTERN.findall(read_help(words, capsys)):
        if example.startswith("thaw "):
            parse(shlex.split(example.split(" > ")[0].replace(" <(", " "))[1:])


def parse(arguments: list[str]) -> None:
    """Parse a command line without running it; a file that it names need not exist."""
    context, group = click.Context(thaw, info_name="thaw"), thaw
    while isinstance(group, click.Group):
        name, *arguments = arguments or [group.default_verb] if isinstance(group, VerbGroup) else arguments
        if isinstance(group, VerbGroup) and group.default_verb and "=" in name:
            name, arguments = group.default_verb, [name, *arguments]
        command = group.get_command(context, name)
        assert command is not None, name
        context, group = click.Context(command, parent=context, info_name=name), command
    assert isinstance(command, VerbCommand)
    command.parse_args(context, arguments)


@every_verb
def test_help_names_every_option_with_its_meaning(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    text = read_help(words, capsys)
    for option in VERBS[words].verb.options:
        assert option.help
        assert f"\n  {option.opts[0]} " in text


@every_verb
def test_an_unknown_option_gets_the_nearest_one(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    if words == ("train",):
        pytest.skip("the options of thaw train are Hydra's")
    options = [option.opts[0] for option in VERBS[words].verb.options]
    misspelt = f"{options[0]}x" if options else "--nonsense"
    assert main([*words, misspelt]) == 2
    message = capsys.readouterr().err
    assert message.startswith("thaw: nothing was started.\n")
    assert f"  {misspelt}\n      got:   no such option" in message
    assert not options or f"fix:   {options[0]}" in message


def test_options_have_the_same_meaning_in_every_verb() -> None:
    metavars: dict[str, set[str]] = {}
    for command in VERBS.values():
        for option in command.verb.options:
            metavars.setdefault(option.opts[0], set()).add(str(option.metavar))
    assert metavars["--steps"] == metavars["--seed"] == metavars["--top"] == metavars["--port"] == {"N"}
    assert metavars["--config-dir"] == {"DIR"}
    assert metavars["--out"] == {"DIR", "FILE"}


def test_every_verb_that_takes_a_recipe_takes_the_users_presets() -> None:
    for words, command in VERBS.items():
        if command.verb.recipe_keys == ANY_RECIPE_KEY and words not in (("train",), ("resume",)):  # a run has a recipe
            assert "--config-dir" in [option.opts[0] for option in command.verb.options], words


def test_the_version_is_that_of_the_package(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"thaw {version('thaw')}\n"


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        (["trian", "seed=1"], "thaw train"),
        (["data", "verfy"], "thaw data verify"),
        (["data", "seed=1"], "thaw data --help"),
        (["cache", "claer"], "thaw cache clear"),
        (["--versoin"], "thaw --version"),
    ],
)
def test_an_unknown_verb_gets_the_nearest_one(
    arguments: list[str], fix: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert f"fix:   {fix}\n" in capsys.readouterr().err


def test_help_of_thaw_and_of_its_verbs_imports_no_slow_library() -> None:
    code = """if True:
        import sys
        from thaw.cli.main import main
        from thaw.cli.main import VERBS
        main(["--help"])
        for verb in VERBS:
            if verb != "train":
                main([verb, "--help"])
        print(*{name.split(".")[0] for name in sys.modules})"""
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert SLOW_MODULES.isdisjoint(output.splitlines()[-1].split())


def declare(*recipe_keys: str) -> Verb:
    """Declare a verb with a path, two options and a flag."""
    options = (
        Option("--steps", type=click.IntRange(min=1), default=5, metavar="N", help="steps"),
        out_option("DIR", "folder"),
        Option("--seed", type=click.IntRange(min=0), metavar="N", help="seed"),
        Option("--csv", is_flag=True, help="format"),
    )
    paths = (path_argument("run", "RUN"),)
    return Verb("try", "try", ("thaw try RUN", "thaw try RUN --csv"), "", paths, options, recipe_keys)


def split(verb: Verb, *arguments: str) -> SplitWords:
    return split_words(verb, "thaw try", arguments)


@pytest.mark.parametrize("spelling", [("--steps", "7"), ("--steps=7",), ("steps=7",)])
def test_an_option_may_be_written_in_three_ways(spelling: tuple[str, ...]) -> None:
    words = split(declare(), "RUN", *spelling)
    assert (words.paths, words.values["steps"].text, words.problems) == (["RUN"], "7", [])


def test_a_key_of_the_recipe_comes_before_an_option_of_its_name() -> None:
    words = split(declare(*ANY_RECIPE_KEY), "RUN", "seed=1", "--seed", "2", "steps=7")
    assert words.overrides == ["seed=1"]
    assert {name: value.text for name, value in words.values.items()} == {"seed": "2", "steps": "7"}


def test_a_verb_without_recipe_has_no_keys() -> None:
    assert split(declare(), "RUN", "seed=1").values["seed"].text == "1"


def test_a_folder_with_an_equals_sign_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0_seed=1").mkdir()
    monkeypatch.chdir(tmp_path)
    assert split(declare(), "0_seed=1").paths == ["0_seed=1"]
    assert split(declare(), "outputs/0_seed=1").paths == ["outputs/0_seed=1"]
    assert split(declare(), "1_seed=1").problems[0].got == "no such setting"


def test_words_after_two_hyphens_are_paths() -> None:
    assert split(declare(), "--csv", "--", "--steps").paths == ["--steps"]


def test_all_problems_are_reported_at_once() -> None:
    command = declare()(lambda **_: 0)
    arguments = ["--stepz", "3", "--steps", "0", "--out", "--seed=x", "--csv", "--csv", "nonsense=3"]
    with pytest.raises(UserError) as raised:
        command.parse_args(click.Context(command, info_name="try"), arguments)
    problems = {problem.subject: (problem.got, problem.valid, problem.fix) for problem in raised.value.problems}
    assert problems["--stepz"] == ("no such option", "--steps, --out, --seed, --csv", "--steps VALUE")
    assert problems["--steps 0"] == ("0", "a whole number of at least 1", "--steps 5")
    assert problems["--out"] == ("no value", "--out DIR", "--out VALUE")
    assert problems["--seed=x"] == ("x", "a whole number of at least 0", "--seed=N")
    assert problems["--csv"] == ("a second --csv", "one", "leave one out")
    assert problems["nonsense=3"][0] == "no such setting"
    assert "3" not in problems


def test_the_groups_are_the_folders_with_presets() -> None:
    choices = list_group_choices()
    assert "hydra" not in choices
    assert {"fixed", "finetune"} <= set(choices["strategy"])
