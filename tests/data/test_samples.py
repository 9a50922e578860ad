"""Samples of image folders: which files count, how splits are created, what changes the fingerprint."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from tests.data.pictures import make_image, write_class_folders
from thaw.config.errors import UserError
from thaw.data.folder_reader import IN_NO_CLASS
from thaw.data.folder_scan import HIDDEN, NO_IMAGE_SUFFIX, SYSTEM_FILE
from thaw.data.sample_table import SPLITS
from thaw.data.samples import Samples, load_folder_samples
from thaw.data.splits import SplitSettings

SPLIT_FOLDERS = {"train": "train", "val": "val", "test": "test"}
FRACTIONS = {"val": 0.2, "test": 0.1}


def load(root: Path, seed: int = 0, folders: dict[str, str | None] | None = None, **fractions: float) -> Samples:
    return load_folder_samples(root, folders or {**SPLIT_FOLDERS}, SplitSettings(fractions or FRACTIONS, seed))


def write_split_folders(root: Path, **counts: int) -> Path:
    for number, (split, count) in enumerate(counts.items()):
        write_class_folders(root / split, {"ant": count, "bee": count}, first_seed=1000 * number)
    return root


def get_paths(samples: Samples, split: str) -> set[str]:
    return {samples.samples[position].path for position in samples.get_positions(split)}


def count_per_class(samples: Samples, split: str) -> dict[str, int]:
    return dict(Counter(samples.classes[samples.samples[position].label] for position in samples.get_positions(split)))


def test_images_in_split_folders_keep_split_and_class(tmp_path: Path) -> None:
    samples = load(write_split_folders(tmp_path, train=3, val=2, test=1))
    assert samples.classes == ("ant", "bee")
    assert samples.count_per_split() == {"train": 6, "val": 4, "test": 2}
    for sample in samples.samples:
        split, name, _ = sample.path.split("/")
        assert (split, name) == (sample.split, samples.classes[sample.label])


def test_samples_are_sorted_by_split_and_path(tmp_path: Path) -> None:
    samples = load(write_split_folders(tmp_path, test=2, train=3, val=2)).samples
    assert list(samples) == sorted(samples, key=lambda sample: (SPLITS.index(sample.split), sample.path))


def test_positions_and_labels_match_the_samples(tmp_path: Path) -> None:
    samples = load(write_split_folders(tmp_path, train=3, val=2, test=1))
    assert sorted(position for split in SPLITS for position in samples.get_positions(split)) == list(range(12))
    assert samples.get_labels().tolist() == [sample.label for sample in samples.samples]
    assert (samples.get_labels().dtype, samples.get_positions("val").dtype) == ("int64", "int64")


def test_split_folders_may_have_other_names(tmp_path: Path) -> None:
    root = write_split_folders(tmp_path, training=4, official=2)
    samples = load(root, folders={"train": "training", "val": None, "test": "official"}, val=0.25)
    assert samples.count_per_split() == {"train": 6, "val": 2, "test": 4}


def test_images_in_sub_folders_of_a_class_belong_to_it(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path, {"ant": 9, "bee": 9, "bee/garden/2024": 1})
    samples = load(root)
    assert {sample.label for sample in samples.samples if "garden" in sample.path} == {samples.classes.index("bee")}


def test_class_folders_are_split_by_class(tmp_path: Path) -> None:
    samples = load(write_class_folders(tmp_path, {"ant": 10, "bee": 20}))
    assert count_per_class(samples, "train") == {"ant": 7, "bee": 14}
    assert count_per_class(samples, "val") == {"ant": 2, "bee": 4}
    assert count_per_class(samples, "test") == {"ant": 1, "bee": 2}


def test_each_image_is_in_one_split(tmp_path: Path) -> None:
    samples = load(write_class_folders(tmp_path, {"ant": 10, "bee": 20}))
    assert len({sample.path for sample in samples.samples}) == len(samples.samples) == 30


def test_splits_depend_on_the_seed(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"ant": 20, "bee": 20})
    assert load(tmp_path, seed=1).samples == load(tmp_path, seed=1).samples
    assert get_paths(load(tmp_path, seed=1), "val") != get_paths(load(tmp_path, seed=2), "val")


def test_splits_do_not_depend_on_the_order_of_file_creation(tmp_path: Path) -> None:
    write_class_folders(tmp_path / "one", {"ant": 9, "bee": 9})
    for path in sorted((tmp_path / "one").rglob("*.png"), reverse=True):
        copy = tmp_path / "two" / path.relative_to(tmp_path / "one")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    first, second = load(tmp_path / "one"), load(tmp_path / "two")
    assert first.samples == second.samples
    assert first.fingerprint == second.fingerprint


def test_classes_are_split_by_different_permutations(tmp_path: Path) -> None:
    samples = load(write_class_folders(tmp_path, {"ant": 30, "bee": 30}))
    names = {name: {Path(path).name for path in get_paths(samples, "val") if name in path} for name in ("ant", "bee")}
    assert names["ant"] != names["bee"]


def test_validation_images_are_split_from_train_if_they_have_no_folder(tmp_path: Path) -> None:
    samples = load(write_split_folders(tmp_path, train=10, test=3), val=0.2, test=0.5)
    assert samples.count_per_split() == {"train": 16, "val": 4, "test": 6}
    assert all(path.startswith("train/") for path in get_paths(samples, "val"))


@pytest.mark.parametrize("seed", range(5))
def test_official_test_images_never_move(tmp_path: Path, seed: int) -> None:
    write_split_folders(tmp_path, train=10, test=3)
    samples = load(tmp_path, seed=seed, val=0.5, test=0.3)
    assert get_paths(samples, "test") == {sample.path for sample in samples.samples if sample.path.startswith("test/")}


def test_a_fraction_of_zero_creates_no_split(tmp_path: Path) -> None:
    assert load(write_split_folders(tmp_path, train=10, test=3), val=0.0).count_per_split() == {
        "train": 20,
        "val": 0,
        "test": 6,
    }


def test_each_class_keeps_a_train_image(tmp_path: Path) -> None:
    samples = load(write_class_folders(tmp_path, {"ant": 2, "bee": 1, "cow": 9}), val=0.6, test=0.6)
    assert count_per_class(samples, "train") == {"ant": 1, "bee": 1, "cow": 1}


def test_files_that_are_not_images_are_ignored_and_named(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"ant": 9, "bee": 9})
    stray_files = {
        **dict.fromkeys(("README.txt", "ant/notes.txt"), NO_IMAGE_SUFFIX),
        **dict.fromkeys(("ant/.DS_Store", "bee/._00.png"), HIDDEN),
        "bee/Thumbs.db": SYSTEM_FILE,
    }
    for name in stray_files:
        (tmp_path / name).write_bytes(b"no image")
    samples = load(tmp_path)
    assert samples.ignored_files == stray_files
    assert len(samples.samples) == 18


def test_images_outside_class_folders_are_ignored_and_named(tmp_path: Path) -> None:
    write_split_folders(tmp_path, train=9, test=3)
    make_image(9, 9).save(tmp_path / "train" / "overview.png")
    assert load(tmp_path).ignored_files == {"train/overview.png": IN_NO_CLASS}


def test_images_in_hidden_folders_are_ignored(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"ant": 9, "bee": 9, "ant/.ipynb_checkpoints": 1, ".trash": 3})
    samples = load(tmp_path)
    assert samples.classes == ("ant", "bee")
    assert len(samples.samples) == 18
    assert "ant/.ipynb_checkpoints/00.png" in samples.ignored_files


def test_a_data_set_may_be_below_a_hidden_folder(tmp_path: Path) -> None:
    assert len(load(write_class_folders(tmp_path / ".cache" / "set", {"ant": 9, "bee": 9})).samples) == 18


def test_class_folders_without_images_are_reported_with_what_they_contain(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"ant": 9, "bee": 9, "empty": 0, "papers": 0})
    (tmp_path / "papers" / "cite.pdf").touch()
    with pytest.raises(UserError) as error_info:
        load(tmp_path)
    assert [(problem.subject, problem.got) for problem in error_info.value.problems] == [
        ("empty/", "a folder without an image: empty"),
        ("papers/", "a folder without an image: 1 .pdf"),
    ]
    assert "dataset.exclude=[papers]" in str(error_info.value)
    samples = load_folder_samples(tmp_path, SPLIT_FOLDERS, SplitSettings(FRACTIONS), exclude=["papers", "empty"])
    assert samples.classes == ("ant", "bee")


def test_suffixes_may_be_uppercase(tmp_path: Path) -> None:
    write_class_folders(tmp_path, {"ant": 9, "bee": 9})
    make_image(9, 9).save(tmp_path / "ant" / "DSC_1.JPG")
    assert len(load(tmp_path).samples) == 19


@pytest.fixture
def dataset_folder(tmp_path: Path) -> Path:
    return write_split_folders(tmp_path / "dataset", train=4, test=2)


def test_the_fingerprint_does_not_depend_on_the_location(dataset_folder: Path) -> None:
    before = load(dataset_folder).fingerprint
    assert load(dataset_folder.rename(dataset_folder.with_name("elsewhere"))).fingerprint == before


def test_the_fingerprint_changes_with_one_byte(dataset_folder: Path) -> None:
    before = load(dataset_folder).fingerprint
    file = dataset_folder / "train" / "ant" / "00.png"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert load(dataset_folder).fingerprint != before


def test_the_fingerprint_changes_with_a_label(dataset_folder: Path) -> None:
    before = load(dataset_folder).fingerprint
    (dataset_folder / "train" / "ant" / "00.png").rename(dataset_folder / "train" / "bee" / "99.png")
    assert load(dataset_folder).fingerprint != before


def test_the_fingerprint_changes_with_a_class_name(dataset_folder: Path) -> None:
    before = load(dataset_folder).fingerprint
    for split in ("train", "test"):
        (dataset_folder / split / "bee").rename(dataset_folder / split / "wasp")
    assert load(dataset_folder).fingerprint != before


def test_the_fingerprint_changes_with_a_split(dataset_folder: Path) -> None:
    assert len({load(dataset_folder, seed=seed, val=0.25).fingerprint for seed in (0, 1, 2)}) > 1
    assert load(dataset_folder, val=0.25).fingerprint != load(dataset_folder, val=0.0).fingerprint


def test_the_fingerprint_changes_with_a_split_even_in_the_same_order(tmp_path: Path) -> None:
    root = write_split_folders(tmp_path, test=1)
    write_class_folders(root / "train", {"ant": 1, "bee": 3})
    without_val = load(root, val=0.0)
    paths = [sample.path for sample in without_val.samples]
    with_val = [load(root, seed=seed, val=0.4) for seed in range(20)]
    same_order = [samples for samples in with_val if [sample.path for sample in samples.samples] == paths]
    assert same_order
    assert without_val.fingerprint not in {samples.fingerprint for samples in same_order}


def test_the_fingerprint_does_not_depend_on_ignored_files(dataset_folder: Path) -> None:
    before = load(dataset_folder).fingerprint
    (dataset_folder / "train" / "ant" / "notes.txt").touch()
    assert load(dataset_folder).fingerprint == before


@pytest.mark.parametrize(("counts", "got"), [({}, "0 classes"), ({"ant": 5}, "1 class ant")])
def test_too_few_classes_are_reported_with_the_layout(tmp_path: Path, counts: dict[str, int], got: str) -> None:
    with pytest.raises(UserError, match="too few classes") as error_info:
        load(write_class_folders(tmp_path, counts))
    assert f"got:   {got}\n" in str(error_info.value)
    assert "CLASS/IMAGE" in str(error_info.value)
    assert str(tmp_path) in str(error_info.value)


def test_a_class_without_train_images_is_named(tmp_path: Path) -> None:
    write_split_folders(tmp_path, train=3, test=2)
    write_class_folders(tmp_path / "test", {"wasp": 1})
    with pytest.raises(UserError, match="no train images of wasp"):
        load(tmp_path)


def test_missing_test_images_are_reported_with_two_fixes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no test images") as error_info:
        load(write_split_folders(tmp_path, train=4), val=0.25)
    assert "6 train, 2 val, 0 test" in str(error_info.value)
    assert "test/" in str(error_info.value)
    assert "dataset.fractions.test=" in str(error_info.value)
