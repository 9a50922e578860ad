"""Settings of data sets: names that come from the folder, split folders that would leak."""

from __future__ import annotations

from pathlib import Path

import pytest

from thaw.config.compose import build_dataset_name, check_command, compose_recipe, parse_command
from thaw.config.errors import Problem, UserError
from thaw.config.schema import FolderDatasetConfig


@pytest.mark.parametrize(
    ("root", "name"),
    [
        ("pics/flowers", "flowers"),
        ("pics/flowers/", "flowers"),
        ("pics/flowers/../leaves", "leaves"),
        ("/data/flowers.tar.gz", "flowers"),
        ("flowers.v2.ZIP", "flowers.v2"),
        ("my pics (2024), a=b", "my-pics-2024-a-b"),
        ("blüten", "blüten"),
        ("/", "folder"),
        ("...", "folder"),
        ("a" * 200, "a" * 60),
    ],
)
def test_the_name_of_a_data_set_is_a_plain_word_from_its_root(root: str, name: str) -> None:
    assert build_dataset_name(root) == name


def test_a_folder_names_its_data_set_unless_the_user_does(tmp_path: Path) -> None:
    (tmp_path / "flowers").mkdir()
    for dataset in ("folder", "csv"):
        overrides = [f"dataset={dataset}", f"dataset.root={tmp_path / 'flowers'}"]
        assert compose_recipe(overrides).dataset.name == "flowers"
    assert compose_recipe([*overrides, "dataset.name=roses"]).dataset.name == "roses"


def test_a_missing_root_is_the_only_problem_without_one() -> None:
    with pytest.raises(UserError) as error_info:
        compose_recipe(["dataset=folder"])
    assert [problem.subject for problem in error_info.value.problems] == ["dataset.root has no value yet"]


def test_a_folder_of_two_splits_is_refused_before_the_start(tmp_path: Path) -> None:
    folder = ["dataset=folder", f"dataset.root={tmp_path}"]
    with pytest.raises(UserError) as error_info:
        compose_recipe([*folder, "dataset.splits={train: train, val: train, test: ./train/}"])
    (problem,) = error_info.value.problems
    assert problem.subject == "dataset.splits: train is the folder of train, val, test"
    assert problem.fix == "dataset.splits.val=null dataset.splits.test=null, which takes val, test images from train"


def test_a_data_set_may_have_no_split_folders(tmp_path: Path) -> None:
    dataset = compose_recipe(["dataset=folder", f"dataset.root={tmp_path}", "dataset.splits=null"]).dataset
    assert isinstance(dataset, FolderDatasetConfig)
    assert dataset.splits is None


def find_problem(*words: str) -> Problem:
    with pytest.raises(UserError) as error_info:
        compose_recipe(words)
    (problem,) = error_info.value.problems
    return problem


@pytest.mark.parametrize(
    ("words", "subject", "got"),
    [
        (["dataset=folder", "dataset.group_pattern=p[0-9]+"], "dataset.group_pattern=p[0-9]+", "no parentheses"),
        (["dataset=folder", "dataset.group_pattern=p("], "dataset.group_pattern=p(", "no regular expression"),
        (
            ["dataset=csv", "dataset.group_pattern=(.)", "dataset.group_column=patient"],
            "dataset.group_column and dataset.group_pattern both say the groups",
            "",
        ),
        (
            ["dataset=csv", "dataset.per_class=30", "dataset.group_column=patient"],
            "dataset.per_class=30 and dataset.group_column",
            "whole groups rarely have exactly so many images of a class",
        ),
    ],
)  # fmt: skip
def test_groups_that_cannot_be_used_are_a_problem_before_the_start(
    words: list[str], subject: str, got: str, tmp_path: Path
) -> None:
    problem = find_problem(*words, f"dataset.root={tmp_path}")
    assert problem.subject == subject
    assert problem.got.startswith(got)
    assert "group" in problem.fix or "per_class=null" in problem.fix


@pytest.mark.parametrize("pattern", [r"/(p\d{2,3})_[^/]*$", "(a|b),=' \"", r"^(.*?)\.jpg$", "'(a)'", "null"])
def test_a_pattern_is_taken_literally(pattern: str, tmp_path: Path) -> None:
    dataset = compose_recipe(["dataset=folder", f"dataset.root={tmp_path}", f"dataset.group_pattern={pattern}"]).dataset
    assert isinstance(dataset, FolderDatasetConfig)
    assert dataset.group_pattern == {"null": None, "'(a)'": "(a)"}.get(pattern, pattern)
    sweep = parse_command(["-m", "dataset=folder", f"dataset.root={tmp_path}", f"dataset.group_pattern={pattern}"])
    assert check_command(sweep).num_jobs == 1
