"""CIFAR-10's pickles: what they become, and what is refused."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data import official
from tests.data.official import CIFAR_CLASSES, written
from thaw.config.errors import UserError
from thaw.data.cifar import build_cifar_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return written(tmp_path, official.cifar_files()) / "cifar-10-batches-py"


def refused(source: Path) -> str:
    cache = source.parent / "cache"
    with pytest.raises(UserError) as caught:
        build_cifar_folder(source, cache)
    assert [path for path in cache.rglob("*") if path.is_dir() and path.name.startswith("cifar")] == []
    return str(caught.value)


class Code:
    """Pickles to a call of `os.mkdir(folder)`."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


def test_pixels_and_labels_come_out_as_they_were_written(source: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (10, 3072)).astype(np.uint8)
    content = {b"data": pixels, b"labels": list(reversed(range(10)))}
    (source / "data_batch_3").write_bytes(official.pickled(content))
    folder = build_cifar_folder(source, tmp_path / "cache")
    for number in range(10):
        file = folder / "train" / CIFAR_CLASSES[9 - number] / f"data_batch_3_{number:05}.png"
        with Image.open(file) as opened:
            assert np.array_equal(np.asarray(opened), pixels[number].reshape(3, 32, 32).transpose(1, 2, 0))


def test_every_class_of_the_meta_file_has_its_folder(source: Path, tmp_path: Path) -> None:
    folder = build_cifar_folder(source, tmp_path / "cache")
    for split in ("train", "test"):
        assert sorted(path.name for path in (folder / split).iterdir()) == sorted(CIFAR_CLASSES)
    assert len(list(folder.rglob("*.png"))) == 60


def test_pickles_of_python_3_are_read_too(source: Path, tmp_path: Path) -> None:
    pixels = np.arange(3072, dtype=np.uint8).reshape(1, -1)
    for protocol in (2, 3, 4):
        (source / "test_batch").write_bytes(pickle.dumps({"data": pixels, "labels": [4]}, protocol))
        folder = build_cifar_folder(source, tmp_path / f"cache{protocol}")
        with Image.open(folder / "test" / "deer" / "test_batch_00000.png") as opened:
            assert np.array_equal(np.asarray(opened)[..., 0].ravel(), pixels[0, :1024])


def test_it_is_converted_once(source: Path, tmp_path: Path) -> None:
    first = build_cifar_folder(source, tmp_path / "cache")
    marked = first / "marked"
    marked.touch()
    assert build_cifar_folder(source, tmp_path / "cache") == first
    assert marked.exists()


@pytest.mark.parametrize("file", ["batches.meta", "data_batch_2", "test_batch"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_refused_and_not_run(source: Path, file: str, protocol: int) -> None:
    evil = source.parent / "evil"
    (source / file).write_bytes(pickle.dumps({"data": Code(evil), "labels": [1]}, protocol))
    assert "mkdir" in refused(source)
    assert not evil.exists()


def test_objects_of_numpy_other_than_arrays_of_bytes_are_refused(source: Path) -> None:
    for array in (np.zeros((1, 3072)), np.array([[None] * 3072])):
        (source / "test_batch").write_bytes(pickle.dumps({"data": array, "labels": [1]}, 2))
        assert "uint8" in refused(source)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "shape (2, 3072) for 1 labels"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "labels that no class has: 10"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [-1]}, "labels that no class has: -1"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1.0]}, "labels that no class has: 1.0"),
        ({b"labels": [1]}, "no data and labels"),
        ([1, 2], "not one of CIFAR-10"),
    ],
)
def test_a_batch_of_another_form_is_refused(source: Path, content: Any, told: str) -> None:
    (source / "data_batch_1").write_bytes(official.pickled(content))
    assert told in refused(source)


@pytest.mark.parametrize("cut", [0, 1, 100, 3000])
def test_a_file_that_breaks_off_is_refused(source: Path, cut: int) -> None:
    content = (source / "data_batch_1").read_bytes()
    (source / "data_batch_1").write_bytes(content[:cut])
    assert "data_batch_1" in refused(source)


@pytest.mark.parametrize("name", [b"../evil", b"/evil", b"..", b".", b"", b"a\\b", b"a/b", b".hidden"])
def test_class_names_that_lead_elsewhere_are_refused(source: Path, name: bytes) -> None:
    names = [name, *(one.encode() for one in CIFAR_CLASSES[1:])]
    (source / "batches.meta").write_bytes(official.pickled({b"label_names": names}))
    assert "cannot be a folder" in refused(source)


@pytest.mark.parametrize("names", [None, b"airplane", [7] * 10])
def test_class_names_that_are_no_list_of_texts_are_refused(source: Path, names: Any) -> None:
    (source / "batches.meta").write_bytes(official.pickled({b"label_names": names}))
    assert "no label_names" in refused(source)


def test_a_class_without_images_is_refused(source: Path) -> None:
    names = [*(one.encode() for one in CIFAR_CLASSES), b"submarine"]
    (source / "batches.meta").write_bytes(official.pickled({b"label_names": names}))
    assert "submarine" in refused(source)


def test_missing_files_are_told(source: Path) -> None:
    (source / "data_batch_4").unlink()
    assert "no data_batch_4" in refused(source)
