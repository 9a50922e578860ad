"""Splits by images a class, and what an image folder leaves out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.pictures import class_folders
from thaw.config.errors import UserError
from thaw.data.readers import Row
from thaw.data.samples import load_folder_samples
from thaw.data.splits import split_per_class

NAMED = {"train": "train", "val": "val", "test": "test"}
ROWS = [Row(f"{name}/{number:03}.png", name) for name in ("ant", "bee") for number in range(40 + 60 * (name == "bee"))]


def count(rows: list[Row], name: str, split: str) -> int:
    return sum(row.class_name == name and row.split == split for row in rows)


def test_each_class_gets_so_many_train_images_and_the_rest_is_shared_out() -> None:
    rows = split_per_class(ROWS, 30, 0.25, seed=0)
    counts = {name: [count(rows, name, split) for split in ("train", "val", "test")] for name in ("ant", "bee")}
    assert counts == {"ant": [30, 2, 8], "bee": [30, 18, 52]}
    assert {row.path for row in rows} == {row.path for row in ROWS}


def test_more_images_a_class_contain_the_fewer_of_the_same_seed() -> None:
    few, many = ({row.path for row in split_per_class(ROWS, n, 0.2, 3) if row.split == "train"} for n in (5, 30))
    assert few < many


def test_images_a_class_depend_on_the_seed_alone() -> None:
    assert split_per_class(ROWS, 30, 0.2, 1) == split_per_class(list(reversed(ROWS)), 30, 0.2, 1)
    assert set(split_per_class(ROWS, 30, 0.2, 1)) != set(split_per_class(ROWS, 30, 0.2, 2))


def test_a_class_always_keeps_a_test_image() -> None:
    rows = split_per_class(ROWS, 39, 0.9, 0)
    assert [count(rows, "ant", split) for split in ("train", "val", "test")] == [39, 0, 1]


def test_classes_with_too_few_images_are_told_with_what_is_possible() -> None:
    with pytest.raises(UserError, match=r"ant \(40\)") as caught:
        split_per_class(ROWS, 40, 0.2, 0)
    assert "dataset.per_class=39" in str(caught.value)
    assert "bee" not in str(caught.value)


def test_images_a_class_of_a_data_set_with_splits_of_its_own_are_told(tmp_path: Path) -> None:
    for split in ("train", "test"):
        class_folders(tmp_path / split, {"ant": 4, "bee": 4})
    with pytest.raises(UserError, match="split already") as caught:
        load_folder_samples(tmp_path, NAMED, {"val": 0.1, "test": 0.1}, 0, per_class=2)
    assert "dataset.per_class=null" in str(caught.value)


def test_excluded_folders_are_neither_classes_nor_passed_over(tmp_path: Path) -> None:
    class_folders(tmp_path, {"ant": 9, "bee": 9, "background": 9})
    samples = load_folder_samples(tmp_path, NAMED, {"val": 0.2, "test": 0.2}, 0, exclude=["background"])
    assert (samples.classes, samples.ignored_files) == (("ant", "bee"), ())


def test_a_test_folder_without_images_is_not_cut_from_train(tmp_path: Path) -> None:
    class_folders(tmp_path / "train", {"ant": 9, "bee": 9})
    (tmp_path / "test").mkdir()
    with pytest.raises(UserError, match="no test images"):
        load_folder_samples(tmp_path, NAMED, {"val": 0.2, "test": 0.2}, 0)


def test_names_that_are_no_utf8_are_indexed_or_told(tmp_path: Path) -> None:
    class_folders(tmp_path, {"ant": 9, "bee": 9})
    try:
        (tmp_path / "ant" / "00.png").rename(tmp_path / "ant" / os.fsdecode(b"\xe9.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (tmp_path / os.fsdecode(b"ant/\xe9.txt")).touch()
    samples = load_folder_samples(tmp_path, NAMED, {"val": 0.2, "test": 0.2}, 0)
    assert "ant/\udce9.png" in {one.path for one in samples.samples}
    assert samples.ignored_files == (r"ant/\xe9.txt",)
    (tmp_path / "bee").rename(tmp_path / os.fsdecode(b"b\xe9e"))
    with pytest.raises(UserError, match="names that cannot be read") as caught:
        load_folder_samples(tmp_path, NAMED, {"val": 0.2, "test": 0.2}, 0)
    assert r"b\xe9e" in str(caught.value)
