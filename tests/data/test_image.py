"""Files of all sorts -> the picture a person sees."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.data.pictures import pixels_of
from thaw.data.image import BrokenImageError, decode_image

PIXELS = pixels_of(20, 30)
WHITE = [255, 255, 255]


def saved(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def read(path: Path) -> np.ndarray:
    image = decode_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def transparent_left(pixels: np.ndarray) -> np.ndarray:
    """uint8 [height, width, channels + 1]: the left half is clear, the right half is not."""
    alpha = np.full((*pixels.shape[:2], 1), 255, np.uint8)
    alpha[:, : pixels.shape[1] // 2] = 0
    return np.concatenate([pixels, alpha], axis=2)


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "ppm", "webp"])
def test_colours_come_as_they_are(tmp_path: Path, suffix: str) -> None:
    options = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(read(saved(Image.fromarray(PIXELS), tmp_path / f"image.{suffix}", **options)), PIXELS)


def test_grey_is_the_same_in_all_three_channels(tmp_path: Path) -> None:
    grey = PIXELS[:, :, 0]
    assert np.array_equal(read(saved(Image.fromarray(grey), tmp_path / "grey.png")), np.stack([grey] * 3, axis=2))


def test_one_bit_is_black_and_white(tmp_path: Path) -> None:
    bits = PIXELS[:, :, 0] > 128
    expected = np.stack([bits * np.uint8(255)] * 3, axis=2)
    assert np.array_equal(read(saved(Image.fromarray(bits), tmp_path / "bits.png")), expected)


def test_a_palette_is_looked_up(tmp_path: Path) -> None:
    palette = Image.fromarray(PIXELS).quantize(16)
    assert np.array_equal(read(saved(palette, tmp_path / "palette.png")), np.asarray(palette.convert("RGB")))


def test_the_clear_colour_of_a_palette_is_white(tmp_path: Path) -> None:
    palette = Image.fromarray(PIXELS).quantize(16)
    pixels = read(saved(palette, tmp_path / "palette.png", transparency=3))
    clear = np.asarray(palette) == 3
    assert clear.any()
    assert (pixels[clear] == WHITE).all()
    assert np.array_equal(pixels[~clear], np.asarray(palette.convert("RGB"))[~clear])


def test_the_clear_colour_of_an_image_without_palette_is_white(tmp_path: Path) -> None:
    pixels = PIXELS.copy()
    pixels[:5] = (1, 2, 3)
    read_back = read(saved(Image.fromarray(pixels), tmp_path / "image.png", transparency=(1, 2, 3)))
    assert (read_back[:5] == WHITE).all()
    assert np.array_equal(read_back[5:], pixels[5:])


def test_transparency_lies_on_white(tmp_path: Path) -> None:
    pixels = read(saved(Image.fromarray(transparent_left(PIXELS)), tmp_path / "image.png"))
    assert (pixels[:, :15] == WHITE).all()
    assert np.array_equal(pixels[:, 15:], PIXELS[:, 15:])


def test_half_transparency_is_half_white(tmp_path: Path) -> None:
    pixels = np.zeros((4, 4, 4), np.uint8)
    pixels[:, :, 3] = 128
    assert np.abs(read(saved(Image.fromarray(pixels), tmp_path / "image.png")).astype(int) - 127).max() <= 1


def test_transparent_grey_lies_on_white(tmp_path: Path) -> None:
    image = Image.fromarray(transparent_left(PIXELS[:, :, :1]))
    assert image.mode == "LA"
    pixels = read(saved(image, tmp_path / "image.png"))
    assert (pixels[:, :15] == WHITE).all()
    assert np.array_equal(pixels[:, 15:], np.repeat(PIXELS[:, 15:, :1], 3, axis=2))


def test_printing_colours_come_as_those_of_a_screen(tmp_path: Path) -> None:
    flat = Image.new("CMYK", (16, 16), (0, 255, 255, 0))  # magenta and yellow make red
    red = read(saved(flat, tmp_path / "image.jpg", quality=95))[8, 8].astype(int)
    assert np.abs(red - [255, 0, 0]).max() < 12


@pytest.mark.parametrize(
    ("orientation", "seen"),
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
def test_a_camera_held_askew_gives_an_upright_picture(
    tmp_path: Path, suffix: str, orientation: int, seen: np.ndarray
) -> None:
    exif = Image.Exif()
    exif[274] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(Image.fromarray(PIXELS), tmp_path / f"image.{suffix}", exif=exif, **options)
    assert np.array_equal(read(path), seen)


def exif_with_a_number_as_the_camera_s_name() -> bytes:
    """Orientation 6, and a tag of the wrong type, as some cameras write them."""
    tags = struct.pack("<HHII", 271, 10, 1, 38) + struct.pack("<HHII", 274, 3, 1, 6)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + struct.pack("<I", 0) + struct.pack("<ii", 1, 2)


def test_nonsense_among_the_camera_s_notes_does_not_spoil_the_picture(tmp_path: Path) -> None:
    path = saved(Image.fromarray(PIXELS), tmp_path / "image.png", exif=exif_with_a_number_as_the_camera_s_name())
    assert np.array_equal(read(path), np.rot90(PIXELS, -1))


def sixteen_bits(values: np.ndarray, path: Path) -> Path:
    return saved(Image.fromarray(values.astype(np.uint16)), path)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_and_not_clipped(tmp_path: Path, suffix: str) -> None:
    ramp = np.linspace(0, 65535, 256).round().reshape(16, 16)
    assert np.array_equal(read(sixteen_bits(ramp, tmp_path / f"ramp.{suffix}"))[:, :, 0].ravel(), np.arange(256))


def test_a_dark_image_of_sixteen_bits_stays_dark(tmp_path: Path) -> None:
    assert read(sixteen_bits(np.full((8, 8), 255), tmp_path / "dark.png")).max() == 1


def test_colours_of_sixteen_bits_are_scaled(tmp_path: Path) -> None:
    rows = np.full((4, 4, 3), 0x8000, ">u2")
    raw = b"".join(b"\0" + row.tobytes() for row in rows)
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(raw)), (b"IEND", b"")]
    file = b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    (tmp_path / "deep.png").write_bytes(b"\x89PNG\r\n\x1a\n" + file)
    assert (read(tmp_path / "deep.png") == 128).all()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png", "tif"])
def test_an_animation_is_its_first_frame(tmp_path: Path, suffix: str) -> None:
    red, blue = (Image.new("RGB", (12, 10), colour) for colour in ("#ff0000", "#0000ff"))
    options = {"lossless": True} if suffix == "webp" else {}
    path = saved(red, tmp_path / f"image.{suffix}", save_all=True, append_images=[blue, red], **options)
    pixels = read(path)
    assert pixels.shape == (10, 12, 3)
    assert (pixels == [255, 0, 0]).all()


def test_the_kind_is_told_by_the_content_and_not_by_the_name(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "image.jpg", format="PNG")
    assert np.array_equal(read(tmp_path / "image.jpg"), PIXELS)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
def test_an_image_that_breaks_off_is_broken(tmp_path: Path, suffix: str) -> None:
    path = saved(Image.fromarray(pixels_of(60, 60)), tmp_path / f"image.{suffix}")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(BrokenImageError, match=r"\w"):
        decode_image(path)


def test_an_empty_file_is_broken_and_said_to_be_empty(tmp_path: Path) -> None:
    (tmp_path / "image.png").touch()
    with pytest.raises(BrokenImageError, match="the file is empty"):
        decode_image(tmp_path / "image.png")


def test_a_foreign_file_is_broken_and_named_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "image.png").write_text("<html>404</html>")
    with pytest.raises(BrokenImageError, match=r"cannot identify image file 'image\.png'"):
        decode_image(tmp_path / "image.png")


def test_a_file_that_is_gone_is_broken(tmp_path: Path) -> None:
    with pytest.raises(BrokenImageError, match="No such file"):
        decode_image(tmp_path / "image.png")


def test_a_bomb_is_broken_before_it_takes_memory(tmp_path: Path) -> None:
    saved(Image.new("1", (8, 8)), tmp_path / "bomb.png")
    content = bytearray((tmp_path / "bomb.png").read_bytes())
    content[16:24] = struct.pack(">II", 60_000, 60_000)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    (tmp_path / "bomb.png").write_bytes(content)
    with pytest.raises(BrokenImageError, match="decompression bomb"):
        decode_image(tmp_path / "bomb.png")


def test_a_large_scan_is_no_bomb(tmp_path: Path) -> None:
    path = saved(Image.new("1", (16_000, 12_000)), tmp_path / "scan.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Image.open(path).close()
