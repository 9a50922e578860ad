"""200 files that are hard to read: each comes out right, or is named; nothing crashes, nothing is dropped silently."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.hostile import BLUE, BROKEN, EXPECTED, RED, hostile_folder, kind_of
from thaw.config.errors import UserError
from thaw.data import image_store
from thaw.data.image import decode_image
from thaw.data.inspection import inspect_dataset
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples, load_folder_samples

SMALL = Preprocessing(32, 32, "bilinear", (0.5,) * 3, (0.5,) * 3)


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    return table(hostile_folder(tmp_path_factory.mktemp("hostile")))


def table(root: Path) -> Samples:
    return load_folder_samples(root, {"train": "train", "val": None, "test": "test"}, {"val": 0.0, "test": 0.0}, seed=0)


def broken_in(samples: Samples) -> set[str]:
    return {sample.path for sample in samples.samples if kind_of(sample.path) in BROKEN}


def test_there_are_two_hundred_of_them_of_every_kind(hostile: Samples) -> None:
    assert len(hostile.samples) == 200
    assert min(Counter(kind_of(sample.path) for sample in hostile.samples).values()) >= 15


def test_error_counts_all_broken_images_and_names_the_first_with_their_cause(hostile: Samples, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        inspect_dataset(hostile, SMALL, tmp_path, skip_broken=False, near_duplicates=False)
    broken = broken_in(hostile)
    assert caught.value.headline.startswith(f"{len(broken)} images under {hostile.root} cannot be decoded")
    assert "data.broken=skip" in caught.value.headline
    named = {fault.subject.split(":")[0] for fault in caught.value.problems[:20]}
    assert len(named) == 20
    assert named <= broken
    assert caught.value.problems[20].subject == f"... and {len(broken) - 20} more"


def test_skip_leaves_out_the_broken_ones_by_name_and_every_other_comes_out_right(
    hostile: Samples, tmp_path: Path
) -> None:
    found = inspect_dataset(hostile, SMALL, tmp_path, skip_broken=True, near_duplicates=False)
    assert found.skipped.keys() == broken_in(hostile)
    assert all(found.skipped.values())
    assert len(found.samples.samples) + len(found.skipped) == 200
    for position, sample in enumerate(found.samples.samples):
        pixels = found.store[position]
        left, right = EXPECTED.get(kind_of(sample.path), (RED, BLUE))
        middle = len(pixels) // 2
        assert np.abs(pixels[middle, 2].astype(int) - left).max() < 12, sample.path
        assert np.abs(pixels[middle, -3].astype(int) - right).max() < 12, sample.path


def test_the_transparent_part_is_white(hostile: Samples, tmp_path: Path) -> None:
    found = inspect_dataset(hostile, SMALL, tmp_path, skip_broken=True, near_duplicates=False)
    places = [place for place, sample in enumerate(found.samples.samples) if kind_of(sample.path) == "alpha"]
    assert all((found.store[place][0] > 250).all() for place in places)


def test_skipping_decodes_every_image_once(hostile: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Path] = []

    def counted(path: Path) -> Image.Image:
        seen.append(path)
        return decode_image(path)

    monkeypatch.setattr(image_store, "decode_image", counted)
    inspect_dataset(hostile, SMALL, tmp_path, skip_broken=True, near_duplicates=True)
    contents = {hostile.root / sample.path: one for sample, one in zip(hostile.samples, hostile.hashes, strict=True)}
    assert sorted(contents[path] for path in seen) == sorted(set(hostile.hashes)), "files of equal bytes are one image"
    inspect_dataset(hostile, SMALL, tmp_path, skip_broken=True, near_duplicates=True)
    assert len(seen) == len(set(hostile.hashes))


def test_a_store_built_with_skip_is_no_way_round_error(hostile: Samples, tmp_path: Path) -> None:
    inspect_dataset(hostile, SMALL, tmp_path, skip_broken=True, near_duplicates=False)
    with pytest.raises(UserError, match="cannot be decoded"):
        inspect_dataset(hostile, SMALL, tmp_path, skip_broken=False, near_duplicates=False)


def test_the_fingerprint_is_that_of_what_remains(tmp_path: Path) -> None:
    samples = table(hostile_folder(tmp_path / "data", 39))
    found = inspect_dataset(samples, SMALL, tmp_path / "cache", skip_broken=True, near_duplicates=False)
    for path in found.skipped:
        (samples.root / path).unlink()
    assert found.samples.fingerprint != samples.fingerprint
    assert found.samples == table(samples.root)


def test_what_is_too_wide_is_cut_to_its_middle_and_said(hostile: Samples, tmp_path: Path) -> None:
    found = inspect_dataset(hostile, SMALL, tmp_path, skip_broken=True, near_duplicates=False)
    wide = [place for place, sample in enumerate(found.samples.samples) if kind_of(sample.path) == "wide"]
    assert {found.store[place].shape for place in wide} == {(32, 128, 3)}
    kinds = {problem.kind: problem for problem in found.problems}
    assert len(kinds["elongated"].names) == len(kinds["huge"].names) == len(wide)
    assert kinds["huge"].names[0].endswith("(20000 x 8)")
    assert "one_pixel" in kinds
    assert found.store.pixels.size < 200 * 32 * 128 * 3


@pytest.mark.parametrize(("broken", "message"), [("train/bees", "train images of bees"), ("test", "test images")])
def test_a_data_set_that_loses_too_much_is_a_fault(broken: str, message: str, tmp_path: Path) -> None:
    samples = table(hostile_folder(tmp_path / "data", 78))
    for sample in samples.samples:
        if sample.path.startswith(broken):
            (samples.root / sample.path).write_bytes(b"")
    with pytest.raises(UserError, match=message):
        inspect_dataset(table(samples.root), SMALL, tmp_path / "cache", skip_broken=True, near_duplicates=False)


def test_nothing_but_broken_images_is_a_fault_that_names_them(tmp_path: Path) -> None:
    samples = table(hostile_folder(tmp_path / "data", 13))
    for sample in samples.samples:
        (samples.root / sample.path).write_bytes(b"")
    with pytest.raises(UserError, match="13 images"):
        inspect_dataset(table(samples.root), SMALL, tmp_path / "cache", skip_broken=True, near_duplicates=False)
