"""Write image files that are hard to read; each kind is either readable or broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

RED, BLUE = (200, 30, 30), (30, 30, 200)


def make_halves(width: int = 48, height: int = 36) -> Image.Image:
    """Make an image that is red on the left and blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def _write_truncated_jpeg(folder: Path, name: str) -> Path:
    file = folder / f"{name}.jpg"
    make_halves(200, 150).save(file)
    file.write_bytes(file.read_bytes()[:-400])
    return file


def _write_truncated_png(folder: Path, name: str) -> Path:
    file = folder / f"{name}.png"
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    return file


def _write_empty(folder: Path, name: str) -> Path:
    (folder / f"{name}.png").write_bytes(b"")
    return folder / f"{name}.png"


def _write_html_page(folder: Path, name: str) -> Path:
    (folder / f"{name}.jpg").write_text("<html>404 not found</html>")
    return folder / f"{name}.jpg"


def _write_wrong_suffix(folder: Path, name: str) -> Path:
    make_halves().save(folder / f"{name}.jpg", "PNG")
    return folder / f"{name}.jpg"


def _write_wide(folder: Path, name: str) -> Path:
    make_halves(20_000, 8).save(folder / f"{name}.png")
    return folder / f"{name}.png"


def _write_cmyk(folder: Path, name: str) -> Path:
    make_halves().convert("CMYK").save(folder / f"{name}.jpg", quality=95)
    return folder / f"{name}.jpg"


def _write_palette(folder: Path, name: str) -> Path:
    make_halves().quantize(4).save(folder / f"{name}.png")
    return folder / f"{name}.png"


def _write_alpha(folder: Path, name: str) -> Path:
    image = make_halves().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 48, 6))  # black, but transparent
    image.save(folder / f"{name}.png")
    return folder / f"{name}.png"


def _write_animated(folder: Path, name: str) -> Path:
    later_frames = [Image.new("RGB", (48, 36), "green")] * 2
    make_halves().save(folder / f"{name}.webp", save_all=True, append_images=later_frames, lossless=True)
    return folder / f"{name}.webp"


def _write_rotated(folder: Path, name: str) -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be rotated clockwise by 90 degrees
    make_halves().transpose(Image.Transpose.ROTATE_90).save(folder / f"{name}.jpg", exif=exif, quality=95)
    return folder / f"{name}.jpg"


def _write_16_bit(folder: Path, name: str) -> Path:
    gray = np.where(np.arange(48) < 24, 60_000, 10_000) * np.ones((36, 1))
    Image.fromarray(gray.astype(np.uint16)).save(folder / f"{name}.png")
    return folder / f"{name}.png"


def _write_one_pixel(folder: Path, name: str) -> Path:
    Image.new("RGB", (1, 1), RED).save(folder / f"{name}.png")
    return folder / f"{name}.png"


BROKEN: dict[str, Callable[[Path, str], Path]] = {
    "cut_short": _write_truncated_jpeg,
    "cut_png": _write_truncated_png,
    "empty": _write_empty,
    "page": _write_html_page,
}
READABLE: dict[str, Callable[[Path, str], Path]] = {
    "wrong_suffix": _write_wrong_suffix,
    "wide": _write_wide,
    "cmyk": _write_cmyk,
    "palette": _write_palette,
    "alpha": _write_alpha,
    "animated": _write_animated,
    "rotated": _write_rotated,
    "deep": _write_16_bit,
    "one_pixel": _write_one_pixel,
}
EXPECTED = {
    "deep": ((233,) * 3, (39,) * 3),
    "one_pixel": (RED, RED),
}  # left and right color; RED and BLUE for all other kinds


def write_hostile_folder(root: Path, count: int = 200) -> Path:
    """Write `count` files of all kinds in turn to `root/SPLIT/CLASS`, in two classes, named after their kind."""
    kinds = [*BROKEN.items(), *READABLE.items()]
    for number in range(count):
        kind, write = kinds[number % len(kinds)]
        folder = root / ("train", "train", "test")[number % 3] / ("ants", "bees")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, f"{kind}-{number:03}")
    return root


def get_kind(path: str) -> str:
    """Return the kind of a file that `write_hostile_folder` has written."""
    return Path(path).name.split("-")[0]
