"""Image files of all formats are decoded as a viewer shows them."""

from __future__ import annotations

import io
import os
import random
import struct
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import thaw.data.image
from tests.data.pictures import make_pixels
from thaw.data.image import IMAGE_SUFFIXES, BrokenImageError, DecodedImage, decode_image, decode_indexed
from thaw.data.image_file import ConcurrencyLimit, hash_image_file

PIXELS = make_pixels(20, 30)
WHITE = [255, 255, 255]


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def read(path: Path) -> np.ndarray:
    image = decode_image(path).turn_upright()
    assert image.mode == "RGB"
    return np.asarray(image)


def add_alpha(pixels: np.ndarray) -> np.ndarray:
    """Add an alpha channel, uint8 [height, width, channels + 1]: the left half is transparent."""
    alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    alpha[:, : pixels.shape[1] // 2] = 0
    return np.concatenate([pixels, alpha], axis=2)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_colors_are_unchanged(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(read(save(Image.fromarray(PIXELS), tmp_path / f"image.{suffix}", **options)), PIXELS)


def test_gray_is_the_same_in_all_three_channels(tmp_path: Path) -> None:
    gray = PIXELS[:, :, 0]
    assert np.array_equal(read(save(Image.fromarray(gray), tmp_path / "gray.png")), np.stack([gray] * 3, axis=2))


def test_one_bit_images_are_black_and_white(tmp_path: Path) -> None:
    is_white = PIXELS[:, :, 0] > 128
    expected = np.stack([is_white * np.uint8(255)] * 3, axis=2)
    assert np.array_equal(read(save(Image.fromarray(is_white), tmp_path / "bits.png")), expected)


def test_palette_colors_are_looked_up(tmp_path: Path) -> None:
    palette = Image.fromarray(PIXELS).quantize(16)
    assert np.array_equal(read(save(palette, tmp_path / "palette.png")), np.asarray(palette.convert("RGB")))


def test_the_transparent_color_of_a_palette_is_white(tmp_path: Path) -> None:
    palette = Image.fromarray(PIXELS).quantize(16)
    pixels = read(save(palette, tmp_path / "palette.png", transparency=3))
    is_transparent = np.asarray(palette) == 3
    assert is_transparent.any()
    assert (pixels[is_transparent] == WHITE).all()
    assert np.array_equal(pixels[~is_transparent], np.asarray(palette.convert("RGB"))[~is_transparent])


def test_the_transparent_color_of_an_image_without_palette_is_white(tmp_path: Path) -> None:
    pixels = PIXELS.copy()
    pixels[:5] = (1, 2, 3)
    read_back = read(save(Image.fromarray(pixels), tmp_path / "image.png", transparency=(1, 2, 3)))
    assert (read_back[:5] == WHITE).all()
    assert np.array_equal(read_back[5:], pixels[5:])


def test_transparent_pixels_are_white(tmp_path: Path) -> None:
    pixels = read(save(Image.fromarray(add_alpha(PIXELS)), tmp_path / "image.png"))
    assert (pixels[:, :15] == WHITE).all()
    assert np.array_equal(pixels[:, 15:], PIXELS[:, 15:])


def test_half_transparent_pixels_are_half_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, :, 3] = 128
    assert np.abs(read(save(Image.fromarray(pixels), tmp_path / "image.png")).astype(int) - 127).max() <= 1


def test_transparent_gray_pixels_are_white(tmp_path: Path) -> None:
    image = Image.fromarray(add_alpha(PIXELS[:, :, :1]))
    assert image.mode == "LA"
    pixels = read(save(image, tmp_path / "image.png"))
    assert (pixels[:, :15] == WHITE).all()
    assert np.array_equal(pixels[:, 15:], np.repeat(PIXELS[:, 15:, :1], 3, axis=2))


def test_cmyk_is_converted_to_rgb(tmp_path: Path) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow make red
    red = read(save(image, tmp_path / "image.jpg", quality=95))[8, 8].astype(int)
    assert np.abs(red - [255, 0, 0]).max() < 12


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, PIXELS),
        (2, PIXELS[:, ::-1]),
        (3, PIXELS[::-1, ::-1]),
        (4, PIXELS[::-1]),
        (5, PIXELS.transpose(1, 0, 2)),
        (6, np.rot90(PIXELS, -1)),
        (7, PIXELS[::-1, ::-1].transpose(1, 0, 2)),
        (8, np.rot90(PIXELS, 1)),
    ],
)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int, expected: np.ndarray) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(Image.fromarray(PIXELS), tmp_path / f"image.{suffix}", exif=exif, **options)
    assert np.array_equal(read(path), expected)


def make_exif_with_wrong_type() -> bytes:
    """Make EXIF data with orientation 6 and a tag of a wrong type, as some cameras write it."""
    tags = struct.pack("<HHII", 271, 10, 1, 38) + struct.pack("<HHII", 274, 3, 1, 6)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + struct.pack("<I", 0) + struct.pack("<ii", 1, 2)


def test_exif_tags_of_wrong_types_are_ignored(tmp_path: Path) -> None:
    path = save(Image.fromarray(PIXELS), tmp_path / "image.png", exif=make_exif_with_wrong_type())
    assert np.array_equal(read(path), np.rot90(PIXELS, -1))


def save_16_bit(values: np.ndarray, path: Path) -> Path:
    return save(Image.fromarray(values.astype(np.uint16)), path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_values_are_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().reshape(16, 16)
    assert np.array_equal(read(save_16_bit(ramp, tmp_path / f"ramp.{suffix}"))[:, :, 0].ravel(), np.arange(256))


def test_a_dark_16_bit_image_stays_dark(tmp_path: Path) -> None:
    assert read(save_16_bit(np.full((8, 8), 255), tmp_path / "dark.png")).max() == 1


def test_16_bit_colors_are_scaled(tmp_path: Path) -> None:
    rows = np.full((4, 4, 3), 0x8000, ">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    file = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + file)
    assert (read(tmp_path / "deep.png") == 128).all()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_the_first_frame_of_an_animation_is_decoded(tmp_path: Path, suffix: str) -> None:
    red, blue = (Image.new("RGB", (12, 10), color) for color in ("#ff0000", "#0000ff"))
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(red, tmp_path / f"image.{suffix}", save_all=True, append_images=[blue, red], **options)
    pixels = read(path)
    assert pixels.shape == (10, 12, 3)
    assert (pixels == [255, 0, 0]).all()


def test_the_format_is_detected_from_the_content(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "image.jpg", format="PNG")
    assert np.array_equal(read(tmp_path / "image.jpg"), PIXELS)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
def test_a_truncated_image_is_broken(tmp_path: Path, suffix: str) -> None:
    path = save(Image.fromarray(make_pixels(60, 60)), tmp_path / f"image.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(BrokenImageError, match=r"\w"):
        decode_image(path)


def test_an_empty_file_is_broken_and_reported_as_empty(tmp_path: Path) -> None:
    (tmp_path / "image.png").touch()
    with pytest.raises(BrokenImageError, match="the file is empty"):
        decode_image(tmp_path / "image.png")


def test_a_file_that_is_not_an_image_is_broken_and_named_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_text("<html>404</html>")
    with pytest.raises(BrokenImageError, match=r"cannot identify image file 'image\.png'"):
        decode_image(tmp_path / "image.png")


def test_a_missing_file_is_broken(tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError, match="No such file"):
        decode_image(tmp_path / "image.png")


def test_an_eps_file_is_broken_and_starts_no_interpreter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path / 'started'}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    Image.new("RGB", (9, 9)).save(tmp_path / "image.jpg", format="EPS")
    with pytest.raises(BrokenImageError, match="cannot identify image file"):
        decode_image(tmp_path / "image.jpg")
    assert not (tmp_path / "started").exists()


@pytest.mark.parametrize("suffix", [".gif", ".jfif", ".avif", ".jp2", ".webp", ".tif", ".ppm", ".pgm", ".bmp", ".qoi"])
def test_the_suffixes_of_formats_that_can_be_decoded_are_known(tmp_path: Path, suffix: str) -> None:
    assert suffix in IMAGE_SUFFIXES
    image = Image.fromarray(PIXELS).convert("L" if suffix == ".pgm" else "RGB")
    assert read(save(image, tmp_path / f"image{suffix}")).shape == PIXELS.shape


def test_the_suffixes_of_documents_and_data_are_not_those_of_images() -> None:
    assert not {".eps", ".ps", ".pdf", ".wmf", ".emf", ".h5", ".fits", ".mpg", ".grib"} & {*IMAGE_SUFFIXES}


def save_with_claimed_size(path: Path, width: int, height: int) -> Path:
    """Save a small PNG whose header claims another size."""
    content = bytearray(save(Image.new("1", (8, 8)), path).read_bytes())
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)
    return path


def test_a_decompression_bomb_is_broken(tmp_path: Path) -> None:
    path = save_with_claimed_size(tmp_path / "bomb.png", 60_000, 60_000)
    with pytest.raises(BrokenImageError, match="decompression bomb"):
        decode_image(path)


def test_a_large_scan_is_not_a_decompression_bomb(tmp_path: Path) -> None:
    path = save(Image.new("1", (16_000, 12_000)), tmp_path / "scan.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Image.open(path).close()


def build_gradient(low: float, high: float) -> np.ndarray:
    return np.tile(np.linspace(low, high, 256), (4, 1))


def save_tiff(values: np.ndarray, path: Path, bits: int, sample_format: int) -> Path:
    """Write a gray TIFF of one strip, with little-endian values; values of 12 bits are packed."""
    if bits == 12:
        pairs = values.astype(np.uint32).reshape(-1, 2)
        triples = [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255]
        data = np.stack(triples, axis=1).astype(np.uint8).tobytes()
    else:
        data = values.astype({1: f"<u{bits // 8}", 2: f"<i{bits // 8}", 3: f"<f{bits // 8}"}[sample_format]).tobytes()
    height, width = values.shape
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(data)}
    entries = [struct.pack("<HHII", tag, 4, 1, value) for tag, value in {**tags, 339: sample_format}.items()]
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 0)
    path.write_bytes(struct.pack("<2sHI", b"II", 42, 8 + len(data)) + data + directory)
    return path


@pytest.mark.parametrize(
    ("high", "bits", "sample_format"),
    [(1, 32, 3), (255, 32, 3), (65535, 32, 3), (4095, 12, 1), (65535, 16, 1), (255, 32, 1), (65535, 32, 2)],
)
def test_values_of_more_than_8_bits_are_scaled(tmp_path: Path, high: int, bits: int, sample_format: int) -> None:
    path = save_tiff(build_gradient(0, high), tmp_path / "image.tif", bits, sample_format)
    assert np.abs(read(path)[0].mean(1) - np.arange(256)).max() <= 1


def test_a_float_image_darker_than_white_stays_darker(tmp_path: Path) -> None:
    path = save_tiff(build_gradient(0, 0.5), tmp_path / "image.tif", 32, 3)
    assert read(path).max() == 128


@pytest.mark.parametrize(
    ("low", "high", "bits", "sample_format"),
    [(-1000, 1000, 32, 3), (0, 1.02, 32, 3), (0, 4095, 32, 3), (0, 1e6, 32, 3), (-1, 1, 32, 3), (-9, 9, 16, 2)],
)
def test_values_without_a_known_scale_are_broken_with_a_way_out(
    tmp_path: Path, low: float, high: float, bits: int, sample_format: int
) -> None:
    path = save_tiff(build_gradient(low, high), tmp_path / "image.tif", bits, sample_format)
    with pytest.raises(BrokenImageError, match=rf"values from {low} to .* no known scale: save it with 8 or 16 bits"):
        decode_image(path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_broken(tmp_path: Path, value: float) -> None:
    values = build_gradient(0, 1)
    values[0, 5] = value
    with pytest.raises(BrokenImageError, match="no known scale"):
        decode_image(save_tiff(values, tmp_path / "image.tif", 32, 3))


def test_a_dark_16_bit_portable_graymap_stays_dark(tmp_path: Path) -> None:
    (tmp_path / "dark.pgm").write_bytes(b"P5\n8 8\n65535\n" + np.full((8, 8), 200, ">u2").tobytes())
    assert read(tmp_path / "dark.pgm").max() == 1


def test_a_png_with_megabytes_of_text_is_decoded(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("workflow", "x" * 4_000_000, zip=True)
    text.add_itxt("prompt", "y" * 4_000_000, zip=True)
    assert np.array_equal(read(save(Image.fromarray(PIXELS), tmp_path / "image.png", pnginfo=text)), PIXELS)


def test_a_png_whose_text_is_a_decompression_bomb_is_broken(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add(b"zTXt", b"bomb\0\0" + zlib.compress(bytes(70_000_000), 1))
    with pytest.raises(BrokenImageError, match="too large"):
        decode_image(save(Image.fromarray(PIXELS), tmp_path / "image.png", pnginfo=text))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_is_ignored(tmp_path: Path) -> None:
    path = save(Image.fromarray(PIXELS), tmp_path / "image.png", exif=b"Exif\0\0MM*\0\xff\xff\xff\xff")
    assert np.array_equal(read(path), PIXELS)
    path = save(Image.fromarray(PIXELS), tmp_path / "image.png", exif=b"Exif\0\0no TIFF header")
    assert np.array_equal(read(path), PIXELS)


@pytest.mark.filterwarnings("ignore")  # of Pillow, about damaged metadata
@pytest.mark.parametrize("format_name", ["AVIF", "BLP", "DDS", "SPIDER", "TIFF", "JPEG2000", "WEBP"])
def test_a_damaged_file_of_any_format_is_decoded_or_broken(tmp_path: Path, format_name: str) -> None:
    rng, stream, reasons = random.Random(0), io.BytesIO(), list[str]()
    image = Image.fromarray(make_pixels(32, 32))
    image.convert({"BLP": "P", "SPIDER": "F"}.get(format_name, "RGB")).save(stream, format_name)
    for _ in range(60):
        content = bytearray(stream.getvalue())
        for _ in range(4):
            content[rng.randrange(min(len(content), 128))] = rng.randrange(256)
        (tmp_path / "image.jpg").write_bytes(content)
        try:
            read(tmp_path / "image.jpg")
        except BrokenImageError as error:
            reasons.append(str(error))
    assert all(reasons)
    assert len(reasons) > 5


def test_the_bound_on_pixels_is_the_real_one_and_is_named(tmp_path: Path) -> None:
    path = save_with_claimed_size(tmp_path / "bomb.png", 20_000, 20_001)
    with pytest.raises(BrokenImageError, match=r"400020000 pixels.* limit of 400000000"):
        decode_image(path)


def test_threads_that_decode_large_images_wait_for_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(Image.fromarray(make_pixels(60, 60)), tmp_path / "image.png")
    file_hash, num_pixels, max_pixels = hash_image_file(path), 0, 0
    limit = ConcurrencyLimit(2 * 60 * 60 + 1)
    monkeypatch.setattr(thaw.data.image, "_get_pixel_limit", lambda: limit)

    def count(decoded: DecodedImage) -> None:
        nonlocal num_pixels, max_pixels
        width, height = decoded.size
        num_pixels += width * height
        max_pixels = max(max_pixels, num_pixels)
        time.sleep(0.01)
        num_pixels -= width * height

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: decode_indexed(tmp_path, path.name, file_hash, count), range(16)))
    assert max_pixels == 2 * 60 * 60


def test_more_than_the_limit_of_all_threads_is_held_alone() -> None:
    limit, events = ConcurrencyLimit(10), list[str]()

    def hold_much() -> None:
        with limit.hold(25):
            events.append("much")

    with ThreadPoolExecutor(1) as pool, limit.hold(4):
        future = pool.submit(hold_much)
        with limit.hold(6):
            time.sleep(0.05)
        events.append("little")
        assert not future.done()
        # The pool waits for the thread after the context of `limit` has ended.
    assert events == ["little", "much"]
