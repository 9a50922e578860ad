"""Presets of the user, in the folder of --config-dir, are checked before they are composed: faults with their place."""

from __future__ import annotations

from pathlib import Path

import pytest

from thaw.config.compose import check_command, compose_recipe, parse_command
from thaw.config.errors import Problem, UserError

GOOD = "defaults: [folder]\nname: mine\nroot: .\n"
WRONG_PRESETS = {
    "a bracket": (f"{GOOD}exclude: [no, a\n", "mine.yaml:5:1", "no YAML"),
    "a tab": ("defaults: [folder]\nname: x\n\troot: d\n", "mine.yaml:3:1", "'\\t'"),
    "a key twice": (f"{GOOD}name: y\n", "mine.yaml:4:1", "the key name twice, first in line 2"),
    "a tag": (f"{GOOD}crop: !!python/object/apply:os.abort []\n", "mine.yaml:4:7", "!!python/object/apply:os.abort"),
    "an unknown tag": (f"{GOOD}crop: !Ref x\n", "mine.yaml:4:7", "the tag !Ref"),
    "text": ("hello", "mine.yaml:1:1", "no key: value"),
    "a list": ("- a\n- b\n", "mine.yaml:1:1", "no key: value"),
    "nothing": ("# only a comment\n", "mine.yaml", "an empty file"),
    "a value inside itself": (f"{GOOD}exclude: &a [*a]\n", "mine.yaml:4:10", "a value inside itself"),
    "an unquoted off": ("defaults: [folder, off]\n", "mine.yaml:1:20", "on, off, yes or no"),
    "defaults as text": ("defaults: folder\nname: x\n", "mine.yaml:1:11", "defaults that are no list"),
    "an unknown base": ("defaults: [fodler]\nname: x\n", "mine.yaml: defaults", "no preset dataset/fodler"),
    "itself as base": ("defaults: [mine]\nname: x\n", "mine.yaml: defaults", "a circle: dataset/mine -> dataset/mine"),
    "brackets": (f"{GOOD}exclude: {'[' * 500}", "mine.yaml", ""),
    "aliases": (
        "a: &a [1,1,1,1,1,1,1,1,1,1]\n"
        + "".join(f"{new}: &{new} [{','.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcde", "bcdef", strict=True)),
        "mine.yaml",
        "too many",
    ),
}


def write_preset(folder: Path, content: str | bytes, name: str = "mine") -> list[str]:
    file = folder / "dataset" / f"{name}.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return ["--config-dir", str(folder), f"dataset={name}"]


def find_problems_of(arguments: list[str]) -> tuple[Problem, ...]:
    with pytest.raises(UserError) as caught:
        check_command(parse_command(arguments))
    return caught.value.problems


@pytest.mark.parametrize("kind", WRONG_PRESETS)
def test_a_fault_in_a_preset_is_reported_with_its_place(kind: str, tmp_path: Path) -> None:
    content, place, got = WRONG_PRESETS[kind]
    (problem,) = find_problems_of(write_preset(tmp_path, content))
    assert place in problem.subject
    assert got in problem.got


def test_a_preset_in_another_encoding_is_reported_with_its_line(tmp_path: Path) -> None:
    (problem,) = find_problems_of(write_preset(tmp_path, GOOD.encode() + b"variant: caf\xe9\n"))
    assert problem.got == "line 4 is not in UTF-8"


def test_presets_that_extend_each_other_are_reported(tmp_path: Path) -> None:
    write_preset(tmp_path, "defaults: [two]\nname: x\n", "one")
    (problem,) = find_problems_of(write_preset(tmp_path, "defaults: [one]\nname: x\n", "two"))
    assert problem.got == "a circle: dataset/two -> dataset/one -> dataset/two"


def test_a_preset_without_defaults_is_told_what_to_extend(tmp_path: Path) -> None:
    for content in ("kind: folder\nname: x\nroot: .\n", "name: x\nroot: .\n"):
        (problem,) = find_problems_of(write_preset(tmp_path, content))
        assert "lacks keys of dataset" in problem.subject
        assert "defaults: [folder] in" in problem.fix
        compose_recipe(write_preset(tmp_path, f"defaults: [folder]\n{content}"))


def test_a_preset_with_the_name_of_another_would_be_passed_over(tmp_path: Path) -> None:
    (problem,) = find_problems_of(write_preset(tmp_path, GOOD, "hymenoptera"))
    assert "is used instead" in problem.got


def test_a_misspelt_choice_is_answered_with_an_own_preset(tmp_path: Path) -> None:
    arguments = write_preset(tmp_path, GOOD, "birds")
    (problem,) = find_problems_of([*arguments[:2], "dataset=brids"])
    assert problem.fix == "dataset=birds"


def test_each_preset_of_a_sweep_is_checked(tmp_path: Path) -> None:
    write_preset(tmp_path, GOOD, "good")
    arguments = write_preset(tmp_path, f"{GOOD}name: y\n", "twice")
    (problem,) = find_problems_of(["-m", *arguments[:2], "dataset=good,twice"])
    assert "twice.yaml:4:1" in problem.subject


def test_a_folder_without_presets_is_refused(tmp_path: Path) -> None:
    (problem,) = find_problems_of(["--config-dir", str(tmp_path)])
    assert problem.got == "a folder without presets"
    (problem,) = find_problems_of(["--config-dir", str(tmp_path / "nope")])
    assert problem.got == "no such folder"
