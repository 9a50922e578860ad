"""Image files are read whole, but within bounds; a file that cannot be read has a reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.data.pictures import make_image, write_class_folders
from thaw.config.errors import UserError
from thaw.data.image import decode_image
from thaw.data.image_file import BrokenImageError, hash_image_file, read_image_file
from thaw.data.inspection import inspect_dataset, verify_dataset
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples, load_folder_samples
from thaw.data.splits import SplitSettings

SMALL = Preprocessing(12, 16, "bilinear", (0.5,) * 3, (0.5,) * 3)


def write_huge(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(40 << 30)  # takes no space on the disk


def link_to_unreadable(path: Path) -> None:
    path.symlink_to("/proc/self/mem")  # a regular file of which reading the first byte is an input/output error


UNREADABLE = {
    "40.0 GiB, more than the limit of 1 GiB": write_huge,
    "Input/output error": link_to_unreadable,
    "the file is empty": Path.touch,
    "Is a directory": Path.mkdir,
    "it is not a regular file": os.mkfifo,  # opening it would wait for a writer
    "No such file or directory": lambda _: None,
}


@pytest.mark.parametrize("reason", UNREADABLE)
def test_a_file_that_cannot_be_read_is_broken_with_the_reason(tmp_path: Path, reason: str) -> None:
    UNREADABLE[reason](tmp_path / "image.jpg")
    with pytest.raises(BrokenImageError, match=reason):
        decode_image(tmp_path / "image.jpg")
    assert len(hash_image_file(tmp_path / "image.jpg")) == 64


def test_the_bytes_are_those_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(range(256)) * 1000)
    with read_image_file(tmp_path / "file") as content:
        assert content == bytes(range(256)) * 1000


def load(root: Path) -> Samples:
    return load_folder_samples(
        root, {"train": None, "val": None, "test": None}, SplitSettings({"val": 0.2, "test": 0.2})
    )


@pytest.fixture
def unreadable_folder(tmp_path: Path) -> Path:
    root = write_class_folders(tmp_path / "images", {"ant": 6, "bee": 6})
    write_huge(root / "ant" / "huge.png")
    link_to_unreadable(root / "bee" / "unreadable.png")
    return root


def test_unreadable_files_are_named_by_verify_and_before_a_training(unreadable_folder: Path, tmp_path: Path) -> None:
    (problem,) = verify_dataset(load(unreadable_folder), near_duplicates=False)
    assert problem.kind == "broken"
    assert sorted(problem.names) == [
        "ant/huge.png (the file has 40.0 GiB, more than the limit of 1 GiB)",
        "bee/unreadable.png (Input/output error)",
    ]
    with pytest.raises(UserError, match=r"2 images under .* cannot be decoded"):
        inspect_dataset(load(unreadable_folder), SMALL, tmp_path / "cache", False, False)


@pytest.mark.parametrize("max_store_bytes", [0, 1e9])
def test_unreadable_files_can_be_skipped(unreadable_folder: Path, tmp_path: Path, max_store_bytes: float) -> None:
    data = inspect_dataset(load(unreadable_folder), SMALL, tmp_path / "cache", True, False, max_store_bytes)
    assert data.skipped.keys() == {"ant/huge.png", "bee/unreadable.png"}
    assert len(data.samples.samples) == 12
    assert all(data.store[position].size for position in range(12))


def test_nearly_black_images_are_a_problem(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "images", {"ant": 6, "bee": 6})
    make_image(20, 20).point(lambda value: value // 16).save(root / "ant" / "dark.png")
    for problems in (
        verify_dataset(load(root), near_duplicates=False),
        inspect_dataset(load(root), SMALL, tmp_path / "cache", False, False).problems,
        inspect_dataset(load(root), SMALL, tmp_path / "cache", False, False, max_store_bytes=0).problems,
    ):
        (problem,) = problems
        assert problem.kind == "nearly_black"
        assert problem.names == ("ant/dark.png",)
