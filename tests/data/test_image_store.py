"""Decoded once, and what comes out is what decoding by hand gives."""

from __future__ import annotations

import dataclasses
import multiprocessing
from pathlib import Path

import numpy as np
import pytest

from tests.data.pictures import class_folders, picture
from thaw.config.errors import UserError
from thaw.data.image import decode_image
from thaw.data.image_store import open_image_store
from thaw.data.preprocessing import Preprocessing, resize_image
from thaw.data.samples import Samples, load_folder_samples

SMALL = Preprocessing(12, 16, "bilinear", (0.5,) * 3, (0.5,) * 3)


def table(root: Path) -> Samples:
    return load_folder_samples(
        root, {"train": "train", "val": "val", "test": "test"}, {"val": 0.2, "test": 0.2}, seed=0
    )


@pytest.fixture
def samples(tmp_path: Path) -> Samples:
    """Images of many shapes and kinds."""
    root = class_folders(tmp_path / "images", {"ant": 5, "bee": 5})
    picture(30, 90).save(root / "ant" / "wide.jpg")
    picture(90, 30).convert("L").save(root / "bee" / "tall.png")
    picture(16, 16).convert("P").save(root / "bee" / "palette.png")
    return table(root)


def stores(cache: Path) -> list[Path]:
    return [path for path in (cache / "decoded").iterdir() if path.is_dir()]


def spoil(samples: Samples) -> None:
    for sample in samples.samples:
        (samples.root / sample.path).write_bytes(b"no image any more")


def test_each_image_is_what_decoding_it_by_hand_gives(samples: Samples, tmp_path: Path) -> None:
    store = open_image_store(samples, SMALL, tmp_path / "cache")
    for position, sample in enumerate(samples.samples):
        by_hand = resize_image(decode_image(samples.root / sample.path), SMALL)
        assert store[position].dtype == np.uint8
        assert np.array_equal(store[position], by_hand), sample.path


def test_more_images_than_are_decoded_at_a_time_keep_their_order(tmp_path: Path) -> None:
    samples = table(class_folders(tmp_path / "images", {"ant": 150, "bee": 150}))
    store = open_image_store(samples, SMALL, tmp_path / "cache")
    for position in (0, 100, 255, 256, 257, 299):
        by_hand = resize_image(decode_image(samples.root / samples.samples[position].path), SMALL)
        assert np.array_equal(store[position], by_hand)


def test_a_store_is_built_once(samples: Samples, tmp_path: Path) -> None:
    before = np.array(open_image_store(samples, SMALL, tmp_path / "cache").pixels)
    spoil(samples)  # who decodes them now, fails
    assert np.array_equal(open_image_store(samples, SMALL, tmp_path / "cache").pixels, before)


def test_pixels_cannot_be_changed_by_a_run(samples: Samples, tmp_path: Path) -> None:
    image = open_image_store(samples, SMALL, tmp_path / "cache")[0]
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


@pytest.mark.parametrize("change", [{"resize": 20}, {"interpolation": "bicubic"}, {"squash": True}], ids=str)
def test_another_preprocessing_is_another_store(samples: Samples, tmp_path: Path, change: dict[str, object]) -> None:
    changed = dataclasses.replace(SMALL, **change)
    first, second = (open_image_store(samples, one, tmp_path / "cache") for one in (SMALL, changed))
    assert len(stores(tmp_path / "cache")) == 2
    assert not np.array_equal(first.pixels, second.pixels)
    assert np.array_equal(second[0], resize_image(decode_image(samples.root / samples.samples[0].path), changed))


@pytest.mark.parametrize("change", [{"size": 16}, {"mean": (0.1,) * 3}, {"std": (0.1,) * 3}], ids=str)
def test_what_is_done_after_the_store_does_not_build_another(
    samples: Samples, tmp_path: Path, change: dict[str, object]
) -> None:
    open_image_store(samples, SMALL, tmp_path / "cache")
    spoil(samples)
    open_image_store(samples, dataclasses.replace(SMALL, **change), tmp_path / "cache")
    assert len(stores(tmp_path / "cache")) == 1


def test_a_changed_image_is_another_store(samples: Samples, tmp_path: Path) -> None:
    open_image_store(samples, SMALL, tmp_path / "cache")
    file = samples.root / samples.samples[0].path
    picture(40, 40, seed=99).save(file)
    store = open_image_store(table(samples.root), SMALL, tmp_path / "cache")
    assert np.array_equal(store[0], resize_image(decode_image(file), SMALL))


def test_all_broken_images_are_named_at_once_with_their_causes_and_no_store_is_left(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "images", {"ant": 9, "bee": 9})
    (root / "ant" / "03.png").write_bytes(b"")
    (root / "bee" / "05.png").write_text("<html>404</html>")
    whole = (root / "bee" / "07.png").read_bytes()
    (root / "bee" / "07.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"3 images under .* cannot be decoded") as caught:
        open_image_store(table(root), SMALL, tmp_path / "cache")
    message = str(caught.value)
    assert "ant/03.png: the file is empty" in message
    assert "bee/05.png: cannot identify image file" in message
    assert "bee/07.png: " in message
    assert stores(tmp_path / "cache") == []


def test_a_mended_image_is_decoded_with_the_next_call(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "images", {"ant": 9, "bee": 9})
    (root / "ant" / "03.png").write_bytes(b"")
    with pytest.raises(UserError):
        open_image_store(table(root), SMALL, tmp_path / "cache")
    picture(20, 20).save(root / "ant" / "03.png")
    assert len(open_image_store(table(root), SMALL, tmp_path / "cache").starts) == 18


def test_of_very_many_broken_images_the_rest_is_counted(tmp_path: Path) -> None:
    root = class_folders(tmp_path / "images", {"ant": 12, "bee": 12})
    samples = table(root)
    spoil(samples)
    with pytest.raises(UserError, match=r"24 images(.|\n)*\.\.\. and 4 more"):
        open_image_store(samples, SMALL, tmp_path / "cache")


def build(samples: Samples, cache: Path) -> None:
    assert len(open_image_store(samples, SMALL, cache).starts) == len(samples.samples)


def test_processes_that_ask_together_share_one_store(samples: Samples, tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=build, args=(samples, tmp_path / "cache")) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert len(stores(tmp_path / "cache")) == 1
