"""Splits by images per class, and what an image folder leaves out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.pictures import write_class_folders
from tests.data.tables import Row, build_rows_table, list_rows
from thaw.config.errors import UserError
from thaw.data.folder_scan import NO_IMAGE_SUFFIX
from thaw.data.sample_table import SampleTable
from thaw.data.samples import load_folder_samples
from thaw.data.splits import SplitSettings, split_per_class

SPLIT_FOLDERS = {"train": "train", "val": "val", "test": "test"}
ROWS = [Row(f"{name}/{number:03}.png", name) for name in ("ant", "bee") for number in range(40 + 60 * (name == "bee"))]


TABLE = build_rows_table(ROWS)


def count_rows(rows: SampleTable, name: str, split: str) -> int:
    return sum(row.class_name == name and row.split == split for row in list_rows(rows))


def test_each_class_gets_the_given_number_of_train_images() -> None:
    rows = split_per_class(TABLE, 30, 0.25, seed=0)
    counts = {name: [count_rows(rows, name, split) for split in ("train", "val", "test")] for name in ("ant", "bee")}
    assert counts == {"ant": [30, 2, 8], "bee": [30, 18, 52]}
    assert {row.path for row in rows} == {row.path for row in ROWS}


def test_a_smaller_number_of_images_per_class_is_a_subset() -> None:
    few, many = (
        {row.path for row in split_per_class(TABLE, count, 0.2, 3) if row.split == "train"} for count in (5, 30)
    )
    assert few < many


def test_images_per_class_depend_only_on_the_seed() -> None:
    assert split_per_class(TABLE, 30, 0.2, 1) == split_per_class(build_rows_table(ROWS[::-1]), 30, 0.2, 1)
    assert set(split_per_class(TABLE, 30, 0.2, 1)) != set(split_per_class(TABLE, 30, 0.2, 2))


def test_a_class_always_keeps_a_test_image() -> None:
    rows = split_per_class(TABLE, 39, 0.9, 0)
    assert [count_rows(rows, "ant", split) for split in ("train", "val", "test")] == [39, 0, 1]


def test_classes_with_too_few_images_are_named_with_the_possible_number() -> None:
    with pytest.raises(UserError, match=r"ant \(40\)") as error_info:
        split_per_class(TABLE, 40, 0.2, 0)
    assert "dataset.per_class=39" in str(error_info.value)
    assert "bee" not in str(error_info.value)


def test_images_per_class_require_a_data_set_without_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_class_folders(tmp_path / split, {"ant": 4, "bee": 4})
    with pytest.raises(UserError, match="already split") as error_info:
        load_folder_samples(tmp_path, SPLIT_FOLDERS, SplitSettings({"val": 0.1, "test": 0.1}, per_class=2))
    assert "dataset.per_class=null" in str(error_info.value)


def test_excluded_folders_are_neither_classes_nor_ignored_files(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"ant": 9, "bee": 9, "background": 9})
    samples = load_folder_samples(
        tmp_path, SPLIT_FOLDERS, SplitSettings({"val": 0.2, "test": 0.2}), exclude=["background"]
    )
    assert (samples.classes, samples.ignored_files) == (("ant", "bee"), {})


def test_an_empty_test_folder_is_not_filled_from_train(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "train", {"ant": 9, "bee": 9})
    (tmp_path / "test").mkdir()
    with pytest.raises(UserError, match="no test images"):
        load_folder_samples(tmp_path, SPLIT_FOLDERS, SplitSettings({"val": 0.2, "test": 0.2}))


def test_names_that_are_not_utf8_are_read_or_reported(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"ant": 9, "bee": 9})
    try:
        (tmp_path / "ant" / "00.png").rename(tmp_path / "ant" / os.fsdecode(b"\xe9.png"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    (tmp_path / os.fsdecode(b"ant/\xe9.txt")).touch()
    samples = load_folder_samples(tmp_path, SPLIT_FOLDERS, SplitSettings({"val": 0.2, "test": 0.2}))
    assert "ant/\udce9.png" in {sample.path for sample in samples.samples}
    assert samples.ignored_files == {r"ant/\xe9.txt": NO_IMAGE_SUFFIX}
    (tmp_path / "bee").rename(tmp_path / os.fsdecode(b"b\xe9e"))
    with pytest.raises(UserError, match="names that cannot be decoded") as error_info:
        load_folder_samples(tmp_path, SPLIT_FOLDERS, SplitSettings({"val": 0.2, "test": 0.2}))
    assert r"b\xe9e" in str(error_info.value)
