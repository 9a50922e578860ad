"""An image store contains the images as they are decoded directly, and is built once."""

from __future__ import annotations

import dataclasses
import multiprocessing
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.damage import DAMAGES, WarningReporter
from tests.data.pictures import make_image, write_class_folders
from thaw.config.errors import UserError
from thaw.data.image import decode_image
from thaw.data.image_store import open_image_store
from thaw.data.preprocessing import Preprocessing
from thaw.data.resizing import resize_image
from thaw.data.samples import Samples, load_folder_samples
from thaw.data.splits import SplitSettings

SMALL = Preprocessing(12, 16, "bilinear", (0.5,) * 3, (0.5,) * 3)


def load(root: Path) -> Samples:
    return load_folder_samples(
        root, {"train": "train", "val": "val", "test": "test"}, SplitSettings({"val": 0.2, "test": 0.2})
    )


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    """Write images of many shapes and formats."""
    root = write_class_folders(tmp_path / "images", {"ant": 5, "bee": 5})
    make_image(30, 90).save(root / "ant" / "wide.jpg")
    make_image(90, 30).convert("L").save(root / "bee" / "tall.png")
    make_image(16, 16).convert("P").save(root / "bee" / "palette.png")
    return load(root)


def list_stores(cache: Path) -> list[Path]:
    return [path for path in (cache / "decoded").iterdir() if path.is_dir()]


def break_all_images(samples: Samples) -> None:
    for sample in samples.samples:
        (samples.root / sample.path).write_bytes(b"no image any more")


def test_each_image_is_as_decoded_directly(samples: Samples, tmp_path: Path) -> None:
    store = open_image_store(samples, SMALL, tmp_path / "cache")
    for position, sample in enumerate(samples.samples):
        expected = resize_image(decode_image(samples.root / sample.path), SMALL)
        assert store[position].dtype == np.uint8
        assert np.array_equal(store[position], expected), sample.path


def test_more_images_than_a_chunk_keep_their_order(tmp_path: Path) -> None:
    samples = load(write_class_folders(tmp_path / "images", {"ant": 150, "bee": 150}))
    store = open_image_store(samples, SMALL, tmp_path / "cache")
    for position in (0, 100, 255, 256, 257, 299):
        expected = resize_image(decode_image(samples.root / samples.samples[position].path), SMALL)
        assert np.array_equal(store[position], expected)


def test_a_store_is_built_once(samples: Samples, tmp_path: Path) -> None:
    before = np.array(open_image_store(samples, SMALL, tmp_path / "cache").pixels)
    break_all_images(samples)  # decoding them now fails
    assert np.array_equal(open_image_store(samples, SMALL, tmp_path / "cache").pixels, before)


def test_pixels_are_read_only(samples: Samples, tmp_path: Path) -> None:
    image = open_image_store(samples, SMALL, tmp_path / "cache")[0]
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


@pytest.mark.parametrize("change", [{"resize": 20}, {"interpolation": "bicubic"}, {"squash": True}], ids=str)
def test_another_preprocessing_builds_another_store(
    samples: Samples, tmp_path: Path, change: dict[str, object]
) -> None:
    changed = dataclasses.replace(SMALL, **change)
    first, second = (open_image_store(samples, preprocessing, tmp_path / "cache") for preprocessing in (SMALL, changed))
    assert len(list_stores(tmp_path / "cache")) == 2
    assert not np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(second[0], resize_image(decode_image(samples.root / samples.samples[0].path), changed))


@pytest.mark.parametrize("change", [{"size": 16}, {"mean": (0.1,) * 3}, {"std": (0.1,) * 3}], ids=str)
def test_settings_that_apply_after_the_store_do_not_build_another(
    samples: Samples, tmp_path: Path, change: dict[str, object]
) -> None:
    open_image_store(samples, SMALL, tmp_path / "cache")
    break_all_images(samples)
    open_image_store(samples, dataclasses.replace(SMALL, **change), tmp_path / "cache")
    assert len(list_stores(tmp_path / "cache")) == 1


def test_a_changed_image_builds_another_store(samples: Samples, tmp_path: Path) -> None:
    open_image_store(samples, SMALL, tmp_path / "cache")
    file = samples.root / samples.samples[0].path
    make_image(40, 40, seed=99).save(file)
    store = open_image_store(load(samples.root), SMALL, tmp_path / "cache")
    assert np.array_equal(store[0], resize_image(decode_image(file), SMALL))


def test_all_broken_images_are_named_with_reasons_and_no_store_is_built(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "images", {"ant": 9, "bee": 9})
    (root / "ant" / "03.png").write_bytes(b"")
    (root / "bee" / "05.png").write_text("<html>404</html>")
    content = (root / "bee" / "07.png").read_bytes()
    (root / "bee" / "07.png").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"3 images under .* cannot be decoded") as error_info:
        open_image_store(load(root), SMALL, tmp_path / "cache")
    message = str(error_info.value)
    assert "ant/03.png: the file is empty" in message
    assert "bee/05.png: cannot identify image file" in message
    assert "bee/07.png: " in message
    assert list_stores(tmp_path / "cache") == []


def test_a_repaired_image_is_decoded_with_the_next_call(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "images", {"ant": 9, "bee": 9})
    (root / "ant" / "03.png").write_bytes(b"")
    with pytest.raises(UserError):
        open_image_store(load(root), SMALL, tmp_path / "cache")
    make_image(20, 20).save(root / "ant" / "03.png")
    assert len(open_image_store(load(root), SMALL, tmp_path / "cache").starts) == 18


def test_broken_images_beyond_the_limit_are_counted(tmp_path: Path) -> None:
    root = write_class_folders(tmp_path / "images", {"ant": 12, "bee": 12})
    break_all_images(load(root))
    with pytest.raises(UserError, match=r"24 images(.|\n)*\.\.\. and 4 more"):
        open_image_store(load(root), SMALL, tmp_path / "cache")


@pytest.mark.parametrize("is_removed", [True, False])
def test_an_image_that_changes_after_it_was_indexed_leaves_no_store(
    samples: Samples, tmp_path: Path, is_removed: bool
) -> None:
    file = samples.root / samples.samples[2].path
    content = file.read_bytes()
    file.unlink() if is_removed else make_image(20, 20).save(file, "PNG")
    with pytest.raises(UserError, match="changed or removed") as error_info:
        open_image_store(samples, SMALL, tmp_path / "cache", skip_broken=True)
    assert error_info.value.problems[0].subject == samples.samples[2].path
    assert list_stores(tmp_path / "cache") == []
    file.write_bytes(content)
    store = open_image_store(samples, SMALL, tmp_path / "cache")
    assert np.array_equal(store[2], resize_image(decode_image(file), SMALL))


@pytest.mark.parametrize("name", ["pixels.bin", "table.npy", "broken.json", "checksums.txt"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_built_again_with_a_warning(
    samples: Samples, tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    pixels = np.array(open_image_store(samples, SMALL, tmp_path / "cache").pixels)
    (folder,) = list_stores(tmp_path / "cache")
    damage(folder / name)
    reporter = WarningReporter()
    assert np.array_equal(open_image_store(samples, SMALL, tmp_path / "cache", reporter=reporter).pixels, pixels)
    assert reporter.warnings == [f"the decoded images in {folder} were damaged and are decoded again"]
    open_image_store(samples, SMALL, tmp_path / "cache", reporter=reporter)
    assert len(reporter.warnings) == 1


def test_the_store_of_other_images_under_the_same_name_is_not_used(samples: Samples, tmp_path: Path) -> None:
    other_preprocessing = dataclasses.replace(SMALL, interpolation="nearest")
    expected = np.array(open_image_store(samples, SMALL, tmp_path / "cache").pixels)
    (folder,) = list_stores(tmp_path / "cache")
    open_image_store(samples, other_preprocessing, tmp_path / "cache")
    (other_folder,) = {*list_stores(tmp_path / "cache")} - {folder}
    shutil.rmtree(folder)
    other_folder.rename(folder)
    assert np.array_equal(open_image_store(samples, SMALL, tmp_path / "cache").pixels, expected)


def open_in_process(samples: Samples, cache: Path) -> None:
    assert len(open_image_store(samples, SMALL, cache).starts) == len(samples.samples)


def test_concurrent_processes_share_one_store(samples: Samples, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=open_in_process, args=(samples, tmp_path / "cache")) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(list_stores(tmp_path / "cache")) == 1
