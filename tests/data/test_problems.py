"""Problems of a data set are found and named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import make_image, write_class_folders
from thaw.data.image import decode_image
from thaw.data.inspection import verify_dataset
from thaw.data.near_copies import build_thumbnail, collect_thumbnails, find_copies
from thaw.data.problems import (
    DatasetProblem,
    find_problems,
)
from thaw.data.samples import Samples, load_folder_samples
from thaw.data.splits import SplitSettings


def load(root: Path) -> Samples:
    return load_folder_samples(root, {"train": "train", "val": "val", "test": "test"}, SplitSettings())


def decode_all(samples: Samples) -> list[np.ndarray]:
    return [np.asarray(decode_image(samples.root / sample.path).turn_upright()) for sample in samples.samples]


def find_by_kind(root: Path, near_duplicates: bool = False) -> dict[str, DatasetProblem]:
    samples = load(root)
    images = decode_all(samples)
    sizes = np.array([image.shape[:2] for image in images])
    nearly_black = np.array([image.max() < 17 for image in images])
    thumbnails = collect_thumbnails([build_thumbnail(Image.fromarray(image)) for image in images], sizes)
    copies = find_copies(samples, thumbnails) if near_duplicates else None
    problems = find_problems(samples, sizes, nearly_black, copies)
    return {problem.kind: problem for problem in problems}


@pytest.fixture
def clean_folder(tmp_path: Path) -> Path:
    for number, split in enumerate(("train", "val", "test")):
        write_class_folders(tmp_path / split, {"ant": 4, "bee": 4}, first_seed=100 * number)
    return tmp_path


def test_a_clean_data_set_has_no_problems(clean_folder: Path) -> None:
    assert find_by_kind(clean_folder) == {}
    assert verify_dataset(load(clean_folder), near_duplicates=False) == []


def test_a_class_with_one_train_image_is_named(clean_folder: Path) -> None:
    for file in sorted((clean_folder / "train" / "bee").iterdir())[1:]:
        file.unlink()
    problem = find_by_kind(clean_folder)["few_images"]
    assert problem.names == ("bee",)
    assert str(problem) == "classes with fewer than 2 train images: 1 (bee)"


def test_a_class_in_one_split_only_is_named(clean_folder: Path) -> None:
    write_class_folders(clean_folder / "train", {"wasp": 3}, first_seed=900)
    assert find_by_kind(clean_folder)["one_split"].names == ("wasp",)


def test_equal_files_in_different_splits_are_named_together(clean_folder: Path) -> None:
    shutil.copy(clean_folder / "train" / "ant" / "00.png", clean_folder / "test" / "ant" / "copy.png")
    problems = find_by_kind(clean_folder)
    assert problems.keys() == {"duplicates_across_splits"}
    assert problems["duplicates_across_splits"].names == ("train/ant/00.png = test/ant/copy.png",)


def test_equal_files_within_a_split_are_another_problem(clean_folder: Path) -> None:
    shutil.copy(clean_folder / "train" / "ant" / "00.png", clean_folder / "train" / "ant" / "copy.png")
    assert find_by_kind(clean_folder).keys() == {"duplicates_within_split"}


def test_equal_files_with_two_labels_are_contradictory(clean_folder: Path) -> None:
    shutil.copy(clean_folder / "train" / "ant" / "00.png", clean_folder / "train" / "bee" / "copy.png")
    assert find_by_kind(clean_folder)["contradictory_labels"].names == ("train/ant/00.png = train/bee/copy.png",)


def test_a_large_group_shows_a_file_of_each_split_first_and_counts_the_others(clean_folder: Path) -> None:
    for number in range(6):
        shutil.copy(clean_folder / "train" / "ant" / "00.png", clean_folder / "train" / "ant" / f"copy{number}.png")
    shutil.copy(clean_folder / "train" / "ant" / "00.png", clean_folder / "test" / "ant" / "copy.png")
    problem = find_by_kind(clean_folder)["duplicates_across_splits"]
    assert problem.names[0].count(" = ") == 7
    assert "(train/ant/00.png = test/ant/copy.png = " in str(problem)
    assert str(problem).endswith(" = 4 more)")


def test_equal_files_that_a_random_split_has_separated_show_their_split(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"ant": 1, "bee": 6})
    for number in range(11):
        shutil.copy(tmp_path / "ant" / "00.png", tmp_path / "ant" / f"copy{number}.png")
    samples = load_folder_samples(tmp_path, {"train": "train"}, SplitSettings({"val": 0.2, "test": 0.3}))
    sizes = np.full((len(samples.samples), 2), 12)
    (problem,) = [
        problem
        for problem in find_problems(samples, sizes, sizes[:, 0] == 0)
        if problem.kind == "duplicates_across_splits"
    ]
    assert all(f"[{split}]" in problem.names[0] for split in ("train", "val", "test"))


def test_near_duplicates_are_found_on_request_and_named_as_pairs(clean_folder: Path) -> None:
    make_image(90, 120, seed=5).save(clean_folder / "train" / "ant" / "own.png")
    make_image(90, 120, seed=5).save(clean_folder / "test" / "ant" / "again.bmp")
    make_image(90, 120, seed=5).resize((60, 45)).save(clean_folder / "test" / "bee" / "small.jpg", quality=50)
    assert "near_duplicates" not in find_by_kind(clean_folder)
    names = (
        "train/ant/own.png ~ test/ant/again.bmp (equal pixels, other files)",
        "train/ant/own.png ~ test/bee/small.jpg (resized to 50%)",
    )
    assert find_by_kind(clean_folder, near_duplicates=True)["near_duplicates"].names == names
    (problem,) = verify_dataset(load(clean_folder), near_duplicates=True)
    assert problem.names == names


def test_equal_files_are_not_also_near_duplicates(clean_folder: Path) -> None:
    make_image(90, 90, seed=5).save(clean_folder / "train" / "ant" / "own.png")
    shutil.copy(clean_folder / "train" / "ant" / "own.png", clean_folder / "test" / "ant" / "copy.png")
    assert find_by_kind(clean_folder, near_duplicates=True).keys() == {"duplicates_across_splits"}


@pytest.mark.parametrize(
    ("size", "kind"),
    [((1, 5), "one_pixel"), ((10_001, 1300), "huge"), ((90, 10), "elongated"), ((10, 81), "elongated")],
)
def test_unusual_sizes_are_named(clean_folder: Path, size: tuple[int, int], kind: str) -> None:
    Image.new("RGB", size, "red").save(clean_folder / "train" / "ant" / "odd.png")
    assert find_by_kind(clean_folder)[kind].names == (f"train/ant/odd.png ({size[0]} x {size[1]})",)


@pytest.mark.parametrize("size", [(80, 10), (2, 16), (10_000, 1250)])
def test_sizes_at_the_limit_are_not_unusual(clean_folder: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "red").save(clean_folder / "train" / "ant" / "wide.png")
    assert find_by_kind(clean_folder) == {}


def test_verification_names_broken_files(clean_folder: Path) -> None:
    (clean_folder / "val" / "bee" / "02.png").write_bytes(b"")
    (problem,) = verify_dataset(load(clean_folder), near_duplicates=True)[:1]
    assert problem.names == ("val/bee/02.png (the file is empty)",)


def test_the_record_has_the_first_names_and_the_count_of_all() -> None:
    record = DatasetProblem("huge", "images", tuple(map(str, range(1000)))).to_dict()
    assert record["count"] == 1000
    assert len(record["names"]) == 100
