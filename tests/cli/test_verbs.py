"""What `thaw`'s commands share."""

from __future__ import annotations

from pathlib import Path

import pytest

from thaw.cli.arguments import compose_single_recipe, generate_output_path, is_help_request, parse_verb
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError

VERBS = ("fetch", "verify")


@pytest.mark.parametrize("arguments", [(), ("--help",), ("fetch", "-h"), ("wrong", "--help")])
def test_nothing_asks_for_help_as_help_does(arguments: tuple[str, ...]) -> None:
    assert is_help_request(arguments)
    assert not is_help_request(("fetch", "help=1"))


def test_the_verb_comes_first() -> None:
    assert parse_verb("thaw data", ["verify", "fetch", "seed=1"], VERBS) == ("verify", ["fetch", "seed=1"])


@pytest.mark.parametrize(("word", "fix"), [("verfy", "thaw data verify"), ("seed=1", "thaw data --help")])
def test_a_verb_that_there_is_not_is_answered_with_the_nearest_or_the_help(word: str, fix: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_verb("thaw data", [word], VERBS)
    (fault,) = caught.value.problems
    assert (fault.subject, fault.valid, fault.fix) == (f"thaw data {word}", "fetch, verify", fix)


@pytest.mark.parametrize("options", [["-m"], ["--cfg", "job"], ["--multirun"]])
def test_a_sweep_or_a_printed_config_is_no_recipe(options: list[str]) -> None:
    with pytest.raises(UserError, match="thaw data looks at one data set") as caught:
        compose_single_recipe("thaw data", ["seed=3", *options], "data set", "dataset=NAME")
    (fault,) = caught.value.problems
    assert (fault.subject, fault.valid) == (options[0], "dataset=NAME")


def test_one_recipe_is_what_training_would_get() -> None:
    assert compose_single_recipe("thaw find", ["seed=3"]) == compose_recipe(["seed=3"])


def test_a_new_folder_is_another_each_time(tmp_path: Path) -> None:
    recipe = compose_recipe([f"output_dir={tmp_path}"])
    first, second = (generate_output_path(recipe, "report") for _ in range(2))
    assert first != second
    assert first.parent == tmp_path
    assert first.name.startswith("report_captcha_")
