"""Images decoded at every access are those of the store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.images import image_folder
from thaw.config.errors import UserError
from thaw.data.image_store import LazyImageStore, open_image_store, open_lazy_image_store
from thaw.data.inspection import inspect_dataset
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples, load_folder_samples

PREPROCESSING = Preprocessing(24, 28, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def samples_in(folder: Path) -> Samples:
    image_folder(folder, {"train": 4, "test": 2}, classes=("ants", "bees"))
    return load_folder_samples(folder, {"train": "train", "val": None, "test": "test"}, {"val": 0.0, "test": 0.0}, 0)


def test_live_images_are_those_of_the_store_bit_for_bit(tmp_path: Path) -> None:
    samples = samples_in(tmp_path / "data")
    kept, fresh = (
        open_image_store(samples, PREPROCESSING, tmp_path / "cache"),
        open_lazy_image_store(samples, PREPROCESSING, False),
    )
    assert np.array_equal(kept.sizes, fresh.sizes)
    for position in range(len(samples.samples)):
        assert np.array_equal(kept[position], fresh[position])


def test_a_store_over_its_bound_is_not_written(tmp_path: Path) -> None:
    samples = samples_in(tmp_path / "data")
    data = inspect_dataset(samples, PREPROCESSING, tmp_path / "cache", False, False, max_store_bytes=1000)
    assert isinstance(data.store, LazyImageStore)
    assert not (tmp_path / "cache").exists()


def test_broken_images_are_named_or_left_out_without_a_store_too(tmp_path: Path) -> None:
    samples = samples_in(tmp_path / "data")
    (tmp_path / "data" / samples.samples[1].path).write_bytes(b"")
    with pytest.raises(UserError, match=r"ants/01\.png"):
        open_lazy_image_store(samples, PREPROCESSING, False)
    data = inspect_dataset(samples, PREPROCESSING, tmp_path / "cache", True, False, max_store_bytes=0)
    assert len(data.samples.samples) == len(samples.samples) - 1
    assert list(data.skipped) == [samples.samples[1].path]
    assert np.array_equal(data.store[1], open_lazy_image_store(samples, PREPROCESSING, True)[2])
