"""What is wrong with a data set is found, and named."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import class_folders, picture
from thaw.data.image import decode_image
from thaw.data.inspection import verify_dataset
from thaw.data.near_duplicates import compute_difference_hash, compute_difference_hashes, find_near_duplicates
from thaw.data.problems import DatasetProblem, find_problems
from thaw.data.samples import Samples, load_folder_samples


def table(root: Path) -> Samples:
    return load_folder_samples(
        root, {"train": "train", "val": "val", "test": "test"}, {"val": 0.0, "test": 0.0}, seed=0
    )


def pixels(samples: Samples) -> list[np.ndarray]:
    return [np.asarray(decode_image(samples.root / sample.path)) for sample in samples.samples]


def found_in(root: Path, near: bool = False) -> dict[str, DatasetProblem]:
    samples = table(root)
    images = pixels(samples)
    sizes = np.array([image.shape[:2] for image in images])
    problems = find_problems(samples, sizes, compute_difference_hashes(images) if near else None)
    return {problem.kind: problem for problem in problems}


@pytest.fixture
def clean(tmp_path: Path) -> Path:
    for number, split in enumerate(("train", "val", "test")):
        class_folders(tmp_path / split, {"ant": 4, "bee": 4}, first_seed=100 * number)
    return tmp_path


def test_a_clean_data_set_has_no_problems(clean: Path) -> None:
    assert found_in(clean) == {}
    assert verify_dataset(table(clean), near_duplicates=False) == []


def test_a_class_with_one_train_image_is_named(clean: Path) -> None:
    for file in sorted((clean / "train" / "bee").iterdir())[1:]:
        file.unlink()
    problem = found_in(clean)["few_images"]
    assert problem.names == ("bee",)
    assert str(problem) == "classes with fewer than 2 train images: 1 (bee)"


def test_a_class_in_one_split_only_is_named(clean: Path) -> None:
    class_folders(clean / "train", {"wasp": 3}, first_seed=900)
    assert found_in(clean)["one_split"].names == ("wasp",)


def test_equal_files_in_different_splits_are_named_together(clean: Path) -> None:
    shutil.copy(clean / "train" / "ant" / "00.png", clean / "test" / "ant" / "copy.png")
    problems = found_in(clean)
    assert problems.keys() == {"duplicates_across_splits"}
    assert problems["duplicates_across_splits"].names == ("train/ant/00.png = test/ant/copy.png",)


def test_equal_files_within_a_split_are_told_apart_from_those(clean: Path) -> None:
    shutil.copy(clean / "train" / "ant" / "00.png", clean / "train" / "ant" / "copy.png")
    assert found_in(clean).keys() == {"duplicates_within_split"}


def test_one_image_with_two_labels_is_a_contradiction(clean: Path) -> None:
    shutil.copy(clean / "train" / "ant" / "00.png", clean / "train" / "bee" / "copy.png")
    assert found_in(clean)["contradictory_labels"].names == ("train/ant/00.png = train/bee/copy.png",)


def test_of_a_large_group_the_screen_shows_one_of_each_split_first_and_counts_the_others(clean: Path) -> None:
    for number in range(6):
        shutil.copy(clean / "train" / "ant" / "00.png", clean / "train" / "ant" / f"copy{number}.png")
    shutil.copy(clean / "train" / "ant" / "00.png", clean / "test" / "ant" / "copy.png")
    problem = found_in(clean)["duplicates_across_splits"]
    assert problem.names[0].count(" = ") == 7
    assert "(train/ant/00.png = test/ant/copy.png = " in str(problem)
    assert str(problem).endswith(" = 4 more)")


def test_copies_that_a_cut_by_seed_has_torn_apart_say_their_split(tmp_path: Path) -> None:
    class_folders(tmp_path, {"ant": 1, "bee": 6})
    for number in range(11):
        shutil.copy(tmp_path / "ant" / "00.png", tmp_path / "ant" / f"copy{number}.png")
    samples = load_folder_samples(tmp_path, {"train": "train"}, {"val": 0.2, "test": 0.3}, seed=0)
    sizes = np.full((len(samples.samples), 2), 12)
    (problem,) = [one for one in find_problems(samples, sizes) if one.kind == "duplicates_across_splits"]
    assert all(f"[{split}]" in problem.names[0] for split in ("train", "val", "test"))


def test_an_image_compressed_again_at_half_its_size_looks_alike_and_others_do_not(clean: Path) -> None:
    dice = np.random.default_rng(0)
    for number in range(20):
        coarse = dice.integers(0, 255, (6, 8, 3), dtype=np.uint8)
        Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC).save(
            clean / "train/ant" / f"x{number}.png"
        )
    with Image.open(clean / "train" / "ant" / "x7.png") as image:
        image.convert("RGB").resize((80, 60)).save(clean / "test" / "ant" / "again.jpg", quality=30)
    samples = table(clean)
    places = [place for place, one in enumerate(samples.samples) if "/x" in one.path or "again" in one.path]
    photographs = samples.subset(places)
    looks = compute_difference_hashes(pixels(photographs))
    assert list(find_near_duplicates(photographs, looks)) == [("train/ant/x7.png", "test/ant/again.jpg")]


def test_near_duplicates_are_looked_for_on_demand_and_named_as_pairs(clean: Path) -> None:
    with Image.open(clean / "train" / "ant" / "00.png") as image:
        image.save(clean / "test" / "ant" / "again.bmp")
    assert "near_duplicates" not in found_in(clean)
    names = found_in(clean, near=True)["near_duplicates"].names
    assert "train/ant/00.png ~ test/ant/again.bmp" in names
    assert any(one.kind == "near_duplicates" for one in verify_dataset(table(clean), near_duplicates=True))


def test_equal_files_are_no_near_duplicates_too(clean: Path) -> None:
    picture(90, 90, seed=5).save(clean / "train" / "ant" / "own.png")
    shutil.copy(clean / "train" / "ant" / "own.png", clean / "test" / "ant" / "copy.png")
    samples = table(clean)
    pairs = list(find_near_duplicates(samples, compute_difference_hashes(pixels(samples))))
    assert ("train/ant/own.png", "test/ant/copy.png") not in pairs


def test_images_without_contrast_resemble_nothing(clean: Path) -> None:
    Image.new("RGB", (40, 40), "white").save(clean / "train" / "ant" / "white.png")
    Image.new("RGB", (41, 40), "white").save(clean / "test" / "ant" / "white.png")
    names = found_in(clean, near=True).get("near_duplicates", DatasetProblem("", "", ())).names
    assert not any("white" in name for name in names)
    assert not compute_difference_hash(Image.new("RGB", (40, 40), "grey")).any()


@pytest.mark.parametrize(
    ("size", "kind"),
    [((1, 5), "one_pixel"), ((10_001, 1300), "huge"), ((90, 10), "elongated"), ((10, 81), "elongated")],
)
def test_odd_sizes_are_named_with_the_size(clean: Path, size: tuple[int, int], kind: str) -> None:
    Image.new("RGB", size, "red").save(clean / "train" / "ant" / "odd.png")
    assert found_in(clean)[kind].names == (f"train/ant/odd.png ({size[0]} x {size[1]})",)


@pytest.mark.parametrize("size", [(80, 10), (2, 16), (10_000, 1250)])
def test_sizes_at_the_limit_are_not_odd(clean: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, "red").save(clean / "train" / "ant" / "wide.png")
    assert found_in(clean) == {}


def test_broken_files_are_named_when_verified_though_a_store_was_built_from_them(clean: Path) -> None:
    (clean / "val" / "bee" / "02.png").write_bytes(b"")
    (problem,) = verify_dataset(table(clean), near_duplicates=True)[:1]
    assert problem.names == ("val/bee/02.png (the file is empty)",)


def test_of_very_many_names_the_record_holds_the_first_and_the_count() -> None:
    plain = DatasetProblem("huge", "images", tuple(map(str, range(1000)))).to_dict()
    assert plain["count"] == 1000
    assert len(plain["names"]) == 100
