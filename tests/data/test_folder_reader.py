"""Every layout of an image folder is understood or refused, and every file and folder is used or named."""

from __future__ import annotations

import os
from pathlib import Path
from unicodedata import normalize

import pytest

from tests.data.trees import list_labels, load, write_classes, write_files
from thaw.config.errors import UserError
from thaw.data.folder_reader import IN_NO_CLASS, IN_UNUSED_SPLIT
from thaw.data.folder_scan import BROKEN_LINK, EMPTY_FOLDER, HIDDEN, REPEATED_LINK, SYSTEM_FILE


def get_error(root: Path, *arguments: object, **settings: object) -> str:
    with pytest.raises(UserError) as error_info:
        load(root, *arguments, **settings)
    return str(error_info.value)


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [
        ("train", "valid", "test"),
        ("training", "validation", "testing"),
        ("Train", "Val", "Test"),
        ("TRAINING", "DEV", "TESTING"),
        ("seg_train", "seg_val", "seg_test"),
        ("TrainImages", "ValidImages", "TestImages"),
        ("seg_train/seg_train", "seg_val/seg_val", "seg_test/seg_test"),
        ("archive/train", "archive/valid", "archive/test"),
        ("a/b/train/train", "a/b/val", "a/b/test/test"),
    ],
)
def test_split_folders_of_other_names_are_taken_and_named(tmp_path: Path, train: str, val: str, test: str) -> None:
    folders = {"train": train, "val": val, "test": test}
    write_classes(tmp_path, *(f"{folder}/{name}" for folder in folders.values() for name in ("ant", "bee")))
    samples = load(tmp_path)
    assert samples.classes == ("ant", "bee")
    assert {
        (os.path.relpath(samples.root / path, tmp_path).rpartition("/")[0], split, name)
        for path, (split, name) in list_labels(samples).items()
    } == {(f"{folder}/{name}", split, name) for split, folder in folders.items() for name in ("ant", "bee")}
    assert (samples.ignored_files, samples.warnings) == ({}, ())
    assert any("-> val" in note or "only folder" in note for note in samples.notes)


def test_the_usual_names_need_no_note(tmp_path: Path) -> None:
    write_classes(tmp_path, *(f"{split}/{name}" for split in ("train", "val", "test") for name in ("ant", "bee")))
    assert load(tmp_path).notes == ()


@pytest.mark.parametrize(("first", "second"), [("val", "valid"), ("train", "Training"), ("test", "TESTING")])
def test_two_folders_of_a_split_are_ambiguous_until_one_is_excluded(tmp_path: Path, first: str, second: str) -> None:
    folders = sorted({"train", "test", first, second})
    write_classes(tmp_path, *(f"{folder}/{name}" for folder in folders for name in ("ant", "bee")))
    message = get_error(tmp_path)
    assert f"{min(first, second)}/ and {max(first, second)}/" in message
    excluded = message.partition("dataset.exclude=[")[2].partition("]")[0]
    samples = load(tmp_path, exclude=[excluded])
    assert not any(path.startswith(f"{excluded}/") for path in list_labels(samples))


def test_a_flat_test_folder_gets_a_fix_that_helps(tmp_path: Path) -> None:
    write_classes(tmp_path, "train/ant", "train/bee", "test", count=5)
    message = get_error(tmp_path)
    assert "  test/\n      got:   no images in class folders" in message
    assert "fix:   dataset.splits.test=null, which" in message
    assert "dataset.fractions.test=0.15" in get_error(tmp_path, fractions={"val": 0.2, "test": 0.0})
    samples = load(tmp_path, {"train": "train", "val": "val", "test": None})
    assert samples.count_per_split() == {"train": 6, "val": 2, "test": 2}
    assert samples.ignored_files == {f"test/{number}.png": IN_UNUSED_SPLIT for number in range(5)}


def test_a_class_called_train_is_a_class_when_there_are_no_splits(tmp_path: Path) -> None:
    write_classes(tmp_path, "train", "car", "ship")
    message = get_error(tmp_path)
    assert "train/ beside car/, ship/" in message
    assert "dataset.splits=null if train is a class" in message
    assert load(tmp_path, {}).classes == ("car", "ship", "train")


def test_a_class_called_train_in_several_splits_is_a_class(tmp_path: Path) -> None:
    write_classes(tmp_path, *(f"{split}/{name}" for split in ("train", "test") for name in ("car", "train")))
    assert load(tmp_path).classes == ("car", "train")


@pytest.mark.parametrize(
    "folders",
    [
        ("train/cat", "train/dog", "train/test"),
        ("train/train", "train/test"),
        ("cat/train", "cat/test", "dog/train", "dog/test"),
        ("Train", "Test"),
        ("cat", "dog", "test"),
    ],
)
def test_split_folders_in_wrong_places_are_refused_and_never_classes(tmp_path: Path, folders: tuple[str, ...]) -> None:
    assert "train/CLASS/IMAGE" in get_error(write_classes(tmp_path, *folders))


def test_class_folders_of_class_folders_are_refused_and_merged_on_demand(tmp_path: Path) -> None:
    write_classes(tmp_path, "animals/cat", "animals/dog", "vehicles/car", "vehicles/ship")
    message = get_error(tmp_path)
    assert "animals/\n      got:   a class folder that contains folders of images: cat, dog" in message
    assert "dataset.subfolders=merge" in message
    assert load(tmp_path, merge_subfolders=True).classes == ("animals", "vehicles")
    assert load(tmp_path / "animals").classes == ("cat", "dog")


def test_folders_beside_the_splits_are_refused_and_can_be_excluded_or_named(tmp_path: Path) -> None:
    write_classes(tmp_path, *(f"{folder}/{name}" for folder in ("train", "test_images") for name in ("ant", "bee")))
    write_files(tmp_path, ["annotations/boxes.xml"])
    message = get_error(tmp_path)
    assert "annotations/\n      got:   no images, and it is no split" in message
    assert "dataset.splits.test=test_images, or dataset.exclude=[test_images]" in message
    samples = load(tmp_path, {"train": "train", "val": "val", "test": "test_images"}, exclude=["annotations"])
    assert samples.count_per_split() == {"train": 6, "val": 2, "test": 8}


def test_a_class_folder_that_is_empty_in_one_split_is_named(tmp_path: Path) -> None:
    write_classes(tmp_path, "train/ant", "train/bee", "test/ant")
    write_files(tmp_path, ["test/bee/"])
    assert load(tmp_path).ignored_files == {"test/bee/": EMPTY_FOLDER}


def test_a_class_folder_of_files_that_are_no_images_is_reported_with_their_suffixes(tmp_path: Path) -> None:
    write_classes(tmp_path, "ant", "bee")
    write_classes(tmp_path, "wasp", suffix=".heic")
    assert "wasp/\n      got:   a folder without an image: 4 .heic" in get_error(tmp_path)


def test_every_suffix_that_can_be_decoded_is_read(tmp_path: Path) -> None:
    for suffix in (".gif", ".jfif", ".JPG", ".webp", ".tga", ".jp2"):
        write_classes(tmp_path, suffix[1:], suffix=suffix)
    assert load(tmp_path).classes == ("JPG", "gif", "jfif", "jp2", "tga", "webp")


def test_thumbnails_of_systems_are_named_by_reason(tmp_path: Path) -> None:
    write_classes(tmp_path, "ant", "bee")
    names = ["@eaDir/0.png", "ant/@eaDir/0.png@SYNO/SYNO.png", "Thumbs.db", "__MACOSX/ant/0.png", "#recycle/1.png"]
    write_files(tmp_path, [*names, "bee/.@__thumb/0.png", ".git/config"])
    samples = load(tmp_path)
    assert samples.classes == ("ant", "bee")
    assert samples.group_ignored_files() == {
        HIDDEN: [".git/config", "bee/.@__thumb/0.png"],
        SYSTEM_FILE: sorted(names),
    }


def test_images_in_no_class_folder_are_named(tmp_path: Path) -> None:
    write_classes(tmp_path, "train/ant", "train/bee", "test/ant", "test/bee")
    write_files(tmp_path, ["overview.png", "test/more.png"])
    assert load(tmp_path).ignored_files == {"overview.png": IN_NO_CLASS, "test/more.png": IN_NO_CLASS}


def test_linked_folders_are_followed_once_and_broken_links_named(tmp_path: Path) -> None:
    write_classes(tmp_path / "elsewhere", "more")
    root = write_classes(tmp_path / "set", "ant", "bee")
    for link, target in {
        "bee/part2": tmp_path / "elsewhere" / "more",
        "bee/part3": tmp_path / "elsewhere" / "more",
        "ant/loop": root / "ant",
        "ant/up": tmp_path,
        "ant/same": root / "bee",
        "ant/gone.png": tmp_path / "gone.png",
        "ant/self.png": root / "ant" / "self.png",
    }.items():
        (root / link).symlink_to(target)
    samples = load(root)
    labels = list_labels(samples)
    assert len(labels) == 12
    assert {path for path in labels if "part2" in path} == {f"bee/part2/{number}.png" for number in range(4)}
    assert samples.group_ignored_files() == {
        BROKEN_LINK: ["ant/gone.png", "ant/self.png"],
        REPEATED_LINK: ["ant/loop/", "ant/same/", "ant/up/", "bee/part3/"],
    }
    assert any("bee/part2/" in note for note in samples.notes)


def test_split_folders_that_are_links_to_one_folder_are_not_both_read(tmp_path: Path) -> None:
    write_classes(tmp_path / "all", "ant", "bee")
    (tmp_path / "set").mkdir()
    for name in ("train", "test"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "all")
    message = get_error(tmp_path / "set")
    assert "train/\n      got:   link to a folder that is read already" in message
    assert "dataset.exclude=[train]" in message


def test_composed_and_decomposed_names_are_one_class_and_paths_stay(tmp_path: Path) -> None:
    composed, decomposed = normalize("NFC", "café"), normalize("NFD", "café")
    write_classes(tmp_path, f"train/{composed}", "train/thé", f"test/{decomposed}", f"train/{decomposed}")
    samples = load(tmp_path)
    assert samples.classes == (composed, "thé")
    assert {path for path, (split, _) in list_labels(samples).items() if split == "test"} == {
        f"test/{decomposed}/{number}.png" for number in range(4)
    }
    assert any("2 folders that differ only in how characters are composed" in note for note in samples.notes)


def test_a_line_break_in_the_name_of_a_class_becomes_a_space_and_is_said(tmp_path: Path) -> None:
    samples = load(write_classes(tmp_path, "golden\nretriever", "pug"))
    assert samples.classes == ("golden retriever", "pug")
    assert any("golden" in note for note in samples.notes)


def test_names_that_differ_in_case_or_spaces_are_said_or_refused(tmp_path: Path) -> None:
    write_classes(tmp_path / "cases", "train/Cat", "train/Dog", "test/cat", "test/Dog")
    assert "names that differ in case only: Cat and cat" in get_error(tmp_path / "cases")
    write_classes(tmp_path / "spaces", "train/cat", "train/dog", "test/cat ", "test/dog")
    assert "names that differ in spaces only" in get_error(tmp_path / "spaces")
    assert load(write_classes(tmp_path / "both", "a", "A", "b")).warnings == (
        "classes whose names differ in case only: A, a",
    )


def test_an_excluded_name_that_is_not_there_is_told(tmp_path: Path) -> None:
    write_classes(tmp_path, "Cat", "Dog", "Junk")
    assert "dataset.exclude=[Junk]" in get_error(tmp_path, exclude=["junk"])
    (warning,) = load(tmp_path, exclude=["zzz"]).warnings
    assert "zzz" in warning


def test_files_and_paths_can_be_excluded(tmp_path: Path) -> None:
    write_classes(tmp_path, "ant", "bee", "bee/blurred")
    paths = list_labels(load(tmp_path, exclude=["0.png", "bee/blurred"]))
    assert sorted(paths) == [f"{name}/{number}.png" for name in ("ant", "bee") for number in (1, 2, 3)]


def test_missing_and_overlapping_split_folders_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path, "training_set/ant", "training_set/bee", "holdout/ant", "holdout/bee")
    message = get_error(tmp_path, {"train": "training_set", "val": None, "test": "hold_out"})
    assert "dataset.splits.test=holdout" in message
    message = get_error(tmp_path, {"train": "training_set", "val": None, "test": "training_set/bee"})
    assert "split folders overlap" in message


def test_a_test_folder_alone_needs_train_images(tmp_path: Path) -> None:
    write_classes(tmp_path, "test/ant", "test/bee")
    assert "fix:   a sub-folder train/" in get_error(tmp_path)
