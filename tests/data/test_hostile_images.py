"""Of 200 files that are hard to read, each is either decoded correctly or named."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest

from tests.data.hostile import BLUE, BROKEN, EXPECTED, RED, get_kind, write_hostile_folder
from thaw.config.errors import UserError
from thaw.data import image_store
from thaw.data.image import DecodedImage, decode_indexed
from thaw.data.inspection import inspect_dataset
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples, load_folder_samples
from thaw.data.splits import SplitSettings

T = TypeVar("T")
SMALL = Preprocessing(32, 32, "bilinear", (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return load(write_hostile_folder(tmp_path_factory.mktemp("hostile")))


def load(root: Path) -> Samples:
    return load_folder_samples(root, {"train": "train", "val": None, "test": "test"}, SplitSettings())


def find_broken(samples: Samples) -> set[str]:
    return {sample.path for sample in samples.samples if get_kind(sample.path) in BROKEN}


def test_there_are_two_hundred_files_of_every_kind(hostile: Samples) -> None:
    assert len(hostile.samples) == 200
    assert min(Counter(get_kind(sample.path) for sample in hostile.samples).values()) >= 15


def test_the_error_counts_broken_images_and_names_the_first_with_reasons(hostile: Samples, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error_info:
        inspect_dataset(hostile, SMALL, tmp_path, skip_broken=False, near_duplicates=False)
    broken = find_broken(hostile)
    assert error_info.value.headline.startswith(f"{len(broken)} images under {hostile.root} cannot be decoded")
    assert "data.broken=skip" in error_info.value.headline
    named_paths = {problem.subject.split(":")[0] for problem in error_info.value.problems[:20]}
    assert len(named_paths) == 20
    assert named_paths <= broken
    assert error_info.value.problems[20].subject == f"... and {len(broken) - 20} more"


def test_skip_names_the_broken_images_and_decodes_all_others_correctly(hostile: Samples, tmp_path: Path) -> None:
    inspection = inspect_dataset(hostile, SMALL, tmp_path, skip_broken=True, near_duplicates=False)
    assert inspection.skipped.keys() == find_broken(hostile)
    assert all(inspection.skipped.values())
    assert len(inspection.samples.samples) + len(inspection.skipped) == 200
    for position, sample in enumerate(inspection.samples.samples):
        pixels = inspection.store[position]
        left, right = EXPECTED.get(get_kind(sample.path), (RED, BLUE))
        middle = len(pixels) // 2
        assert np.abs(pixels[middle, 2].astype(int) - left).max() < 12, sample.path
        assert np.abs(pixels[middle, -3].astype(int) - right).max() < 12, sample.path


def test_transparent_pixels_are_white(hostile: Samples, tmp_path: Path) -> None:
    inspection = inspect_dataset(hostile, SMALL, tmp_path, skip_broken=True, near_duplicates=False)
    positions = [index for index, sample in enumerate(inspection.samples.samples) if get_kind(sample.path) == "alpha"]
    assert all((inspection.store[position][0] > 250).all() for position in positions)


def test_skipping_decodes_every_image_once(hostile: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded_hashes: list[str] = []

    def decode_and_record(
        root: Path, path: str, file_hash: str, transform: Callable[[DecodedImage], T], min_side: int | None
    ) -> T:
        decoded_hashes.append(file_hash)
        return decode_indexed(root, path, file_hash, transform, min_side)

    monkeypatch.setattr(image_store, "decode_indexed", decode_and_record)
    inspect_dataset(hostile, SMALL, tmp_path, skip_broken=True, near_duplicates=True)
    assert sorted(decoded_hashes) == sorted(set(hostile.hashes)), "equal files are decoded once"
    inspect_dataset(hostile, SMALL, tmp_path, skip_broken=True, near_duplicates=True)
    assert len(decoded_hashes) == len(set(hostile.hashes))


def test_a_store_built_with_skip_still_reports_broken_images(hostile: Samples, tmp_path: Path) -> None:
    inspect_dataset(hostile, SMALL, tmp_path, skip_broken=True, near_duplicates=False)
    with pytest.raises(UserError, match="cannot be decoded"):
        inspect_dataset(hostile, SMALL, tmp_path, skip_broken=False, near_duplicates=False)


def test_the_fingerprint_is_that_of_the_remaining_images(tmp_path: Path) -> None:
    samples = load(write_hostile_folder(tmp_path / "data", 39))
    inspection = inspect_dataset(samples, SMALL, tmp_path / "cache", skip_broken=True, near_duplicates=False)
    for path in inspection.skipped:
        (samples.root / path).unlink()
    assert inspection.samples.fingerprint != samples.fingerprint
    assert inspection.samples == load(samples.root)


def test_elongated_images_are_cropped_and_reported(hostile: Samples, tmp_path: Path) -> None:
    inspection = inspect_dataset(hostile, SMALL, tmp_path, skip_broken=True, near_duplicates=False)
    wide = [index for index, sample in enumerate(inspection.samples.samples) if get_kind(sample.path) == "wide"]
    assert {inspection.store[index].shape for index in wide} == {(32, 128, 3)}
    kinds = {problem.kind: problem for problem in inspection.problems}
    assert len(kinds["elongated"].names) == len(kinds["huge"].names) == len(wide)
    assert kinds["huge"].names[0].endswith("(20000 x 8)")
    assert "one_pixel" in kinds
    assert inspection.store.pixels.size < 200 * 32 * 128 * 3


@pytest.mark.parametrize(("broken", "message"), [("train/bees", "train images of bees"), ("test", "test images")])
def test_a_data_set_with_too_few_remaining_images_is_rejected(broken: str, message: str, tmp_path: Path) -> None:
    samples = load(write_hostile_folder(tmp_path / "data", 78))
    for sample in samples.samples:
        if sample.path.startswith(broken):
            (samples.root / sample.path).write_bytes(b"")
    with pytest.raises(UserError, match=message):
        inspect_dataset(load(samples.root), SMALL, tmp_path / "cache", skip_broken=True, near_duplicates=False)


def test_a_data_set_of_broken_images_only_is_rejected(tmp_path: Path) -> None:
    samples = load(write_hostile_folder(tmp_path / "data", 13))
    for sample in samples.samples:
        (samples.root / sample.path).write_bytes(b"")
    with pytest.raises(UserError, match="13 images"):
        inspect_dataset(load(samples.root), SMALL, tmp_path / "cache", skip_broken=True, near_duplicates=False)
