"""Files that are hard to read: each kind is right, or broken and to be named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

RED, BLUE = (200, 30, 30), (30, 30, 200)


def halves(width: int = 48, height: int = 36) -> Image.Image:
    """Red on the left, blue on the right."""
    image = Image.new("RGB", (width, height), RED)
    image.paste(BLUE, (width // 2, 0, width, height))
    return image


def _cut_short(folder: Path, name: str) -> Path:
    file = folder / f"{name}.jpg"
    halves(200, 150).save(file)
    file.write_bytes(file.read_bytes()[:-400])
    return file


def _cut_png(folder: Path, name: str) -> Path:
    file = folder / f"{name}.png"
    noise = np.random.default_rng(0).integers(0, 255, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(file.read_bytes()[:2000])
    return file


def _empty(folder: Path, name: str) -> Path:
    (folder / f"{name}.png").write_bytes(b"")
    return folder / f"{name}.png"


def _page(folder: Path, name: str) -> Path:
    (folder / f"{name}.jpg").write_text("<html>404 not found</html>")
    return folder / f"{name}.jpg"


def _wrong_suffix(folder: Path, name: str) -> Path:
    halves().save(folder / f"{name}.jpg", "PNG")
    return folder / f"{name}.jpg"


def _wide(folder: Path, name: str) -> Path:
    halves(20_000, 8).save(folder / f"{name}.png")
    return folder / f"{name}.png"


def _cmyk(folder: Path, name: str) -> Path:
    halves().convert("CMYK").save(folder / f"{name}.jpg", quality=95)
    return folder / f"{name}.jpg"


def _palette(folder: Path, name: str) -> Path:
    halves().quantize(4).save(folder / f"{name}.png")
    return folder / f"{name}.png"


def _alpha(folder: Path, name: str) -> Path:
    image = halves().convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 48, 6))  # black where nobody sees it
    image.save(folder / f"{name}.png")
    return folder / f"{name}.png"


def _animated(folder: Path, name: str) -> Path:
    later = [Image.new("RGB", (48, 36), "green")] * 2
    halves().save(folder / f"{name}.webp", save_all=True, append_images=later, lossless=True)
    return folder / f"{name}.webp"


def _rotated(folder: Path, name: str) -> Path:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # to be turned clockwise by a quarter
    halves().transpose(Image.Transpose.ROTATE_90).save(folder / f"{name}.jpg", exif=exif, quality=95)
    return folder / f"{name}.jpg"


def _deep(folder: Path, name: str) -> Path:
    grey = np.where(np.arange(48) < 24, 60_000, 10_000) * np.ones((36, 1))
    Image.fromarray(grey.astype(np.uint16)).save(folder / f"{name}.png")
    return folder / f"{name}.png"


def _one_pixel(folder: Path, name: str) -> Path:
    Image.new("RGB", (1, 1), RED).save(folder / f"{name}.png")
    return folder / f"{name}.png"


BROKEN: dict[str, Callable[[Path, str], Path]] = {
    "cut_short": _cut_short,
    "cut_png": _cut_png,
    "empty": _empty,
    "page": _page,
}
RIGHT: dict[str, Callable[[Path, str], Path]] = {
    "wrong_suffix": _wrong_suffix,
    "wide": _wide,
    "cmyk": _cmyk,
    "palette": _palette,
    "alpha": _alpha,
    "animated": _animated,
    "rotated": _rotated,
    "deep": _deep,
    "one_pixel": _one_pixel,
}
EXPECTED = {"deep": ((233,) * 3, (39,) * 3), "one_pixel": (RED, RED)}  # left and right; of the others RED and BLUE


def hostile_folder(root: Path, count: int = 200) -> Path:
    """`count` files of all kinds in turn under `root/SPLIT/CLASS`, named after their kind, in two classes."""
    kinds = [*BROKEN.items(), *RIGHT.items()]
    for number in range(count):
        kind, write = kinds[number % len(kinds)]
        folder = root / ("train", "train", "test")[number % 3] / ("ants", "bees")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        write(folder, f"{kind}-{number:03}")
    return root


def kind_of(path: str) -> str:
    return Path(path).name.split("-")[0]
