"""CIFAR-10's pickles are converted to images, and malicious or damaged ones are rejected."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data import official
from tests.data.official import CIFAR_CLASSES, write_files
from thaw.config.errors import UserError
from thaw.data.cifar import build_cifar_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_files(tmp_path, official.make_cifar_files()) / "cifar-10-batches-py"


def convert_and_get_error(source: Path) -> str:
    cache = source.parent / "cache"
    with pytest.raises(UserError) as error_info:
        build_cifar_folder(source, cache)
    assert [path for path in cache.rglob("*") if path.is_dir() and path.name.startswith("cifar")] == []
    return str(error_info.value)


class PickledCall:
    """Pickle as a call of `os.mkdir(folder)`."""

    def __init__(self, folder: Path) -> None:
        self.folder = str(folder)

    def __reduce__(self) -> Any:
        return os.mkdir, (self.folder,)


def test_pixels_and_labels_are_those_of_the_pickle(source: Path, tmp_path: Path) -> None:
    pixels = np.random.default_rng(7).integers(0, 256, (10, 3072)).astype(np.uint8)
    content = {b"data": pixels, b"labels": list(reversed(range(10)))}
    (source / "data_batch_3").write_bytes(official.dump_python2_pickle(content))
    folder = build_cifar_folder(source, tmp_path / "cache")
    for number in range(10):
        file = folder / "train" / CIFAR_CLASSES[9 - number] / f"data_batch_3_{number:05}.png"
        with Image.open(file) as image:
            assert np.array_equal(np.asarray(image), pixels[number].reshape(3, 32, 32).transpose(1, 2, 0))


def test_every_class_of_the_meta_file_has_a_folder(source: Path, tmp_path: Path) -> None:
    folder = build_cifar_folder(source, tmp_path / "cache")
    for split in ("train", "test"):
        assert sorted(path.name for path in (folder / split).iterdir()) == sorted(CIFAR_CLASSES)
    assert len(list(folder.rglob("*.png"))) == 60


def test_pickles_of_python_3_are_supported(source: Path, tmp_path: Path) -> None:
    pixels = np.arange(3072, dtype=np.uint8).reshape(1, -1)
    for protocol in (2, 3, 4):
        (source / "test_batch").write_bytes(pickle.dumps({"data": pixels, "labels": [4]}, protocol))
        folder = build_cifar_folder(source, tmp_path / f"cache{protocol}")
        with Image.open(folder / "test" / "deer" / "test_batch_00000.png") as image:
            assert np.array_equal(np.asarray(image)[..., 0].ravel(), pixels[0, :1024])


def test_the_pickles_are_converted_once(source: Path, tmp_path: Path) -> None:
    first = build_cifar_folder(source, tmp_path / "cache")
    marker = first / "marker"
    marker.touch()
    assert build_cifar_folder(source, tmp_path / "cache") == first
    assert marker.exists()


@pytest.mark.parametrize("file", ["batches.meta", "data_batch_2", "test_batch"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_code_in_a_pickle_is_rejected_and_not_run(source: Path, file: str, protocol: int) -> None:
    evil_folder = source.parent / "evil_folder"
    (source / file).write_bytes(pickle.dumps({"data": PickledCall(evil_folder), "labels": [1]}, protocol))
    assert "mkdir" in convert_and_get_error(source)
    assert not evil_folder.exists()


def test_arrays_of_other_types_than_uint8_are_rejected(source: Path) -> None:
    for array in (np.zeros((1, 3072)), np.array([[None] * 3072])):
        (source / "test_batch").write_bytes(pickle.dumps({"data": array, "labels": [1]}, 2))
        assert "uint8" in convert_and_get_error(source)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({b"data": np.zeros((2, 3072), np.uint8), b"labels": [1]}, "shape (2, 3072) for 1 labels"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [10]}, "labels without a class: 10"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [-1]}, "labels without a class: -1"),
        ({b"data": np.zeros((1, 3072), np.uint8), b"labels": [1.0]}, "labels without a class: 1.0"),
        ({b"labels": [1]}, "no data and labels"),
        ([1, 2], "not part of CIFAR-10"),
    ],
)
def test_an_invalid_batch_is_rejected(source: Path, content: Any, message: str) -> None:
    (source / "data_batch_1").write_bytes(official.dump_python2_pickle(content))
    assert message in convert_and_get_error(source)


@pytest.mark.parametrize("size", [0, 1, 100, 3000])
def test_a_truncated_file_is_rejected(source: Path, size: int) -> None:
    content = (source / "data_batch_1").read_bytes()
    (source / "data_batch_1").write_bytes(content[:size])
    assert "data_batch_1" in convert_and_get_error(source)


@pytest.mark.parametrize("name", [b"../evil", b"/evil", b"..", b".", b"", b"a\\b", b"a/b", b".hidden"])
def test_class_names_that_are_paths_are_rejected(source: Path, name: bytes) -> None:
    names = [name, *(class_name.encode() for class_name in CIFAR_CLASSES[1:])]
    (source / "batches.meta").write_bytes(official.dump_python2_pickle({b"label_names": names}))
    assert "cannot be folder names" in convert_and_get_error(source)


@pytest.mark.parametrize("names", [None, b"airplane", [7] * 10])
def test_class_names_that_are_not_a_list_of_text_are_rejected(source: Path, names: Any) -> None:
    (source / "batches.meta").write_bytes(official.dump_python2_pickle({b"label_names": names}))
    assert "no label_names" in convert_and_get_error(source)


def test_a_class_without_images_is_rejected(source: Path) -> None:
    names = [*(class_name.encode() for class_name in CIFAR_CLASSES), b"submarine"]
    (source / "batches.meta").write_bytes(official.dump_python2_pickle({b"label_names": names}))
    assert "submarine" in convert_and_get_error(source)


def test_missing_files_are_named(source: Path) -> None:
    (source / "data_batch_4").unlink()
    assert "no data_batch_4" in convert_and_get_error(source)
