"""What tells the class without looking at pixels: facts about files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from thaw.auditing.file_facts import FileFacts, measure_names, read_file_facts
from thaw.auditing.shortcuts import Shortcut, measure_shortcuts

NUM_IMAGES = 60
LABELS = np.arange(NUM_IMAGES) % 3


def write_images(root: Path) -> list[str]:
    """Write random images of 3 classes; those of class 1 are saved at another quality, and 0 by another camera."""
    rng, paths = np.random.default_rng(0), []
    for index, label in enumerate(LABELS):
        path = root / "abc"[label] / f"{index // 3:04}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[ExifTags.Base.Model] = "first" if label == 0 else "second"
        exif[ExifTags.Base.DateTime] = f"2020:01:01 10:00:{index % 60:02}"
        pixels = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path, quality=60 if label == 1 else 90, exif=exif)
        paths.append(path.relative_to(root).as_posix())
    return paths


def measure(values: np.ndarray, labels: np.ndarray = LABELS, kind: str = "file size") -> Shortcut:
    return measure_shortcuts(FileFacts({kind: values}), labels, np.arange(len(labels)))[0]


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> FileFacts:
    root = tmp_path_factory.mktemp("images")
    return read_file_facts(root, write_images(root))


def test_the_class_of_another_quality_and_camera_is_told(facts: FileFacts) -> None:
    shortcuts = {shortcut.kind: shortcut for shortcut in measure_shortcuts(facts, LABELS, np.arange(NUM_IMAGES))}
    assert shortcuts.keys() == {"file size", "JPEG tables", "camera", "date"}  # sizes, modes and names are alike
    assert {kind for kind, shortcut in shortcuts.items() if shortcut.is_shortcut} == shortcuts.keys() - {"date"}
    assert [part.label for part in shortcuts["JPEG tables"].classes] == [1]
    assert [part.label for part in shortcuts["camera"].classes] == [0]
    assert shortcuts["JPEG tables"].classes[0].accuracy == 1.0
    text = shortcuts["JPEG tables"].describe("abc")
    assert text.startswith("the class can be told from the JPEG tables alone in 0.")
    assert text.endswith("chance is 0.33; told from all others, where chance is 0.50: b (1.00)")


def test_no_pixel_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = write_images(tmp_path)
    Image.fromarray(np.zeros((9, 9), np.uint8)).save(tmp_path / "a" / "gray.png")
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda _: pytest.fail("a pixel was decoded"))
    assert len(read_file_facts(tmp_path, [*paths, "a/gray.png"]).values_by_kind) == 7


def test_damaged_and_missing_files_are_unknown(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x.jpg").write_bytes(b"no image")
    facts = read_file_facts(tmp_path, ["b/x.jpg", "b/missing.jpg"])
    assert facts.values_by_kind["file size"].tolist() == [[8], [0]]


def test_facts_that_tell_nothing_are_no_shortcut() -> None:
    shortcut = measure(np.random.default_rng(5).random((NUM_IMAGES, 1)))
    assert not shortcut.is_shortcut
    assert shortcut.p_value > 0.05
    assert shortcut.accuracy_ci95[0] < shortcut.chance < shortcut.accuracy_ci95[1]


def test_images_of_one_group_cannot_be_judged() -> None:
    facts = FileFacts({"file size": LABELS[:, None].astype(np.float64)})
    assert measure_shortcuts(facts, LABELS, np.zeros_like(LABELS)) == ()


def test_facts_of_copies_tell_nothing_about_other_images() -> None:
    """Each image has five copies of the same size: only a split that keeps them together shows that it is chance."""
    sizes = np.repeat(np.random.default_rng(0).random((40, 1)), 6, axis=0)
    labels = np.repeat(np.random.default_rng(1).integers(0, 2, 40), 6)
    facts, groups = FileFacts({"file size": sizes}), np.arange(240) // 6
    assert measure_shortcuts(facts, labels, np.arange(240))[0].is_shortcut
    shortcut = measure_shortcuts(facts, labels, groups)[0]
    assert not shortcut.is_shortcut
    assert shortcut.p_value > 0.05


def test_the_accuracy_counts_classes_alike() -> None:
    """All of a large class and none of a small one: one half, which is chance."""
    shortcut = measure(np.zeros((100, 1)), np.array([0] * 90 + [1] * 10))
    assert (shortcut.accuracy, shortcut.is_shortcut) == (0.5, False)


def test_two_sources_of_five_classes_each_are_a_shortcut() -> None:
    """No class can be told from all others, but a network can learn the source instead of the class."""
    labels = np.arange(600) % 10
    assert not measure(labels[:, None] // 5, labels, "JPEG tables").classes
    assert measure(labels[:, None] // 5, labels, "JPEG tables").is_shortcut


def test_numbers_in_names_count_only_if_they_are_not_those_of_each_folder() -> None:
    assert measure_names(["a/0001.jpg", "a/0002.jpg", "b/0001.jpg", "b/0002.jpg"]).shape == (4, 4)
    numbered = measure_names(["a/cat_7.jpg", "b/dog_12_1.jpg"])
    assert numbered[:, -2:].tolist() == [[7, 7], [12, 1]]
    assert numbered[0, 0] != numbered[1, 0]
