"""Large JPEGs are decoded at a fraction of their size, and give nearly the images of full decoding."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.data.pictures import make_pixels
from thaw.data.image import BrokenImageError, decode_image
from thaw.data.image_store import open_image_store
from thaw.data.preprocessing import MIN_SCALED_RATIO, Preprocessing
from thaw.data.resizing import resize_image
from thaw.data.samples import load_folder_samples
from thaw.data.splits import SplitSettings

SCALED = Preprocessing(56, 64, "bicubic", (0.5,) * 3, (0.5,) * 3)
FULL = replace(SCALED, decoding="full")
MAX_MEAN_DIFFERENCE = 1.0  # of 255
KINDS = {
    "RGB": {},
    "without subsampling": {"subsampling": 0},
    "progressive": {"progressive": True},
    "gray": {"mode": "L"},
    "CMYK": {"mode": "CMYK"},
}


def make_photograph(width: int, height: int) -> Image.Image:
    """Make an image that is smooth over some pixels, as photographs are, with noise."""
    small = Image.fromarray(make_pixels(height // 16, width // 16))
    pixels = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    noise = np.random.default_rng(0).normal(0, 4, pixels.shape)
    return Image.fromarray((pixels + noise).clip(0, 255).astype(np.uint8))


def save_jpeg(path: Path, size: tuple[int, int] = (1003, 801), mode: str = "RGB", **options: object) -> Path:
    make_photograph(*size).convert(mode).save(path, "JPEG", quality=90, **options)
    return path


def check_difference(path: Path) -> None:
    """Check that scaled decoding is in use, and that it gives nearly the pixels of full decoding."""
    decoded = decode_image(path, SCALED.min_decoded_side)
    assert decoded.denominator > 1
    assert decoded.upright_size == decode_image(path).upright_size
    scaled, full = resize_image(decoded, SCALED), resize_image(decode_image(path), FULL)
    assert scaled.shape == full.shape
    assert np.abs(scaled.astype(int) - full).mean() < MAX_MEAN_DIFFERENCE


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_jpeg_gives_nearly_the_same_pixels(tmp_path: Path, kind: str) -> None:
    check_difference(save_jpeg(tmp_path / "image.jpg", **KINDS[kind]))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1003, 801), (800, 1200), (1025, 1033)], ids=str)
def test_orientation_is_applied_at_any_size(tmp_path: Path, orientation: int, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    check_difference(save_jpeg(tmp_path / "image.jpg", size, exif=exif))


@pytest.mark.parametrize("size", [(2003, 201), (201, 2003)], ids=str)
def test_an_elongated_image_is_cropped_to_the_same_part(tmp_path: Path, size: tuple[int, int]) -> None:
    path = save_jpeg(tmp_path / "image.jpg", size)
    small = replace(SCALED, resize=24)
    decoded = decode_image(path, small.min_decoded_side)
    assert decoded.denominator == 1
    scaled, full = resize_image(decoded, small), resize_image(decode_image(path), replace(small, decoding="full"))
    assert scaled.shape == full.shape
    assert np.abs(scaled.astype(int) - full).mean() < MAX_MEAN_DIFFERENCE


@pytest.mark.parametrize(
    ("size", "denominator"),
    [((255, 900), 1), ((256, 900), 2), ((511, 600), 2), ((512, 600), 4), ((1023, 1024), 4), ((4000, 3000), 8)],
)
def test_a_jpeg_keeps_at_least_twice_the_side_that_it_is_resized_to(
    tmp_path: Path, size: tuple[int, int], denominator: int
) -> None:
    path = tmp_path / "image.jpg"
    Image.new("RGB", size).save(path)
    decoded = decode_image(path, SCALED.min_decoded_side)
    assert decoded.denominator == denominator
    assert denominator == 1 or min(decoded.pixels.size) >= MIN_SCALED_RATIO * SCALED.resize
    assert decoded.size == size


def test_other_formats_are_decoded_at_their_size(tmp_path: Path) -> None:
    for suffix in ("png", "webp", "tif"):
        Image.new("RGB", (1003, 801)).save(tmp_path / f"image.{suffix}")
        assert decode_image(tmp_path / f"image.{suffix}", SCALED.min_decoded_side).pixels.size == (1003, 801)


def is_broken(content: bytes, path: Path, min_side: int | None) -> bool:
    path.write_bytes(content)
    try:
        decode_image(path, min_side)
    except BrokenImageError:
        return True
    return False


@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_recognized_as_at_its_full_size(tmp_path: Path, progressive: bool) -> None:
    content = save_jpeg(tmp_path / "image.jpg", progressive=progressive).read_bytes()
    lengths = [*range(100, len(content), len(content) // 23), len(content) - 3, len(content)]
    verdicts = [
        [is_broken(content[:length], tmp_path / "cut.jpg", min_side) for length in lengths]
        for min_side in (None, SCALED.min_decoded_side)
    ]
    assert verdicts[0] == verdicts[1]
    assert verdicts[1][-1] is False
    assert sum(verdicts[1]) >= 23


def test_damaged_jpegs_are_recognized_as_at_their_full_size(tmp_path: Path) -> None:
    content, rng = save_jpeg(tmp_path / "image.jpg").read_bytes(), np.random.default_rng(0)
    for _ in range(40):
        damaged = bytearray(content)
        for position in rng.integers(2, len(content), 8):
            damaged[position] = rng.integers(256)
        verdicts = [is_broken(bytes(damaged), tmp_path / "bad.jpg", side) for side in (None, SCALED.min_decoded_side)]
        assert verdicts[0] == verdicts[1]


def test_a_store_holds_sizes_of_the_files_and_is_another_one_for_each_decoding(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            save_jpeg(tmp_path / "data" / split / name / "photo.jpg", (900 + len(split + name), 700), exif=exif)
    folders = {"train": "train", "val": None, "test": "test"}
    samples = load_folder_samples(tmp_path / "data", folders, SplitSettings())
    scaled, full = (open_image_store(samples, choice, tmp_path / "cache") for choice in (SCALED, FULL))
    assert scaled.sizes.tolist() == full.sizes.tolist()
    assert scaled.sizes[0, 1] == 700
    assert np.array_equal(scaled.shapes, full.shapes)
    assert not np.array_equal(scaled.pixels, full.pixels)
    assert len([path for path in (tmp_path / "cache" / "decoded").iterdir() if path.is_dir()]) == 2


def test_pixels_of_full_decoding_are_those_of_version_0_2(tmp_path: Path) -> None:
    """Upright first, then resized by Pillow as a whole."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 5
    path = save_jpeg(tmp_path / "image.jpg", (603, 801), exif=exif)
    with Image.open(io.BytesIO(path.read_bytes())) as image:
        upright = image.convert("RGB").transpose(Image.Transpose.TRANSPOSE)
    expected = upright.resize((int(64 * 801 / 603), 64), Image.Resampling.BICUBIC)
    assert np.array_equal(resize_image(decode_image(path), FULL), np.asarray(expected))
