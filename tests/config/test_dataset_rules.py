"""Settings of data sets: names that come from the folder, split folders that would leak."""

from __future__ import annotations

from pathlib import Path

import pytest

from thaw.config.compose import build_dataset_name, compose_recipe
from thaw.config.errors import UserError
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
