"""A lazy image store gives the same images as a store."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.images import write_image_folder
from thaw.config.errors import UserError
from thaw.data.batches import ImageDataset, SequentialBatchSampler, build_dataloader
from thaw.data.image_store import LazyImageStore, open_image_store, open_lazy_image_store
from thaw.data.inspection import inspect_dataset
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples, load_folder_samples
from thaw.data.splits import SplitSettings

PREPROCESSING = Preprocessing(24, 28, "bicubic", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def write_samples(folder: Path) -> Samples:
    write_image_folder(folder, {"train": 4, "test": 2}, classes=("ants", "bees"))
    return load(folder)


def load(folder: Path) -> Samples:
    return load_folder_samples(folder, {"train": "train", "val": None, "test": "test"}, SplitSettings())


def test_lazy_images_are_those_of_the_store_bit_for_bit(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "data")
    store, lazy_store = (
        open_image_store(samples, PREPROCESSING, tmp_path / "cache"),
        open_lazy_image_store(samples, PREPROCESSING, False),
    )
    assert np.array_equal(store.sizes, lazy_store.sizes)
    for position in range(len(samples.samples)):
        assert np.array_equal(store[position], lazy_store[position])


def test_a_store_over_its_size_limit_is_not_written(tmp_path: Path) -> None:
    samples = write_samples(tmp_path / "data")
    data = inspect_dataset(samples, PREPROCESSING, tmp_path / "cache", False, False, max_store_bytes=1000)
    assert isinstance(data.store, LazyImageStore)
    assert not (tmp_path / "cache").exists()


def test_a_lazy_store_names_or_skips_broken_images(tmp_path: Path) -> None:
    first_samples = write_samples(tmp_path / "data")
    (tmp_path / "data" / first_samples.samples[1].path).write_bytes(b"")
    samples = load(tmp_path / "data")
    with pytest.raises(UserError, match=r"ants/01\.png"):
        open_lazy_image_store(samples, PREPROCESSING, False)
    data = inspect_dataset(samples, PREPROCESSING, tmp_path / "cache", True, False, max_store_bytes=0)
    assert len(data.samples.samples) == len(samples.samples) - 1
    assert list(data.skipped) == [samples.samples[1].path]
    assert np.array_equal(data.store[1], open_lazy_image_store(samples, PREPROCESSING, True)[2])


@pytest.mark.parametrize(("content", "reason"), [(b"another image", "other bytes"), (None, "No such file")])
@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_image_that_changes_during_a_run_is_an_error_that_names_it(
    tmp_path: Path, content: bytes | None, reason: str, num_workers: int
) -> None:
    samples = write_samples(tmp_path / "data")
    store = open_lazy_image_store(samples, PREPROCESSING, False)
    path = samples.root / samples.samples[1].path
    path.write_bytes(content) if content else path.unlink()
    dataset = ImageDataset(store, samples.get_labels(), 24)
    loader = build_dataloader(dataset, SequentialBatchSampler(np.arange(4), 2), num_workers, pin_memory=False)
    with pytest.raises(UserError) as error_info:
        list(loader)
    assert error_info.value.headline == "an image was changed or removed while it was in use."
    assert error_info.value.problems[0].subject == samples.samples[1].path
    assert reason in error_info.value.problems[0].got
