"""Drawn image files of all formats, sound and damaged: each is decoded as the header says, or broken with a reason."""

from __future__ import annotations

import io
import random
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.data.pictures import make_image
from thaw.data.image import ALLOWED_FORMATS, BYTES_PER_PIXEL, decode_image
from thaw.data.image_file import BrokenImageError
from thaw.system.process import get_peak_memory, reset_peak_memory

NUM_FILES = 300
DOCUMENTS = ("EPS", "PDF")  # other programs would have to draw these
SPARE_BYTES = 200 << 20  # what decoding may take beyond the pixels: libraries, buffers, text
LOSSLESS = {"PNG", "BMP", "DIB", "TIFF", "PPM", "PCX", "SGI", "TGA", "QOI", "IM"}
MODES = {  # that Pillow can write, by format; RGB if not listed
    "PNG": ["RGB", "L", "1", "P", "RGBA", "LA", "I;16"],
    "TIFF": ["RGB", "L", "1", "P", "RGBA", "CMYK", "I;16", "F", "LAB", "YCbCr"],
    "JPEG": ["RGB", "L", "CMYK"],
    "GIF": ["RGB", "P", "L", "RGBA"],
    "WEBP": ["RGB", "RGBA"],
    "AVIF": ["RGB", "RGBA"],
    "JPEG2000": ["RGB", "L", "RGBA", "I;16"],
    "BLP": ["P"],
    "SPIDER": ["F"],
    "MSP": ["1"],
    "XBM": ["1"],
    "DDS": ["RGB", "RGBA", "L"],
    "SGI": ["RGB", "L"],
    "PPM": ["RGB", "L", "1", "F", "I;16"],
    "EPS": ["RGB"],
    "PDF": ["RGB"],
}
OPTIONS: dict[str, list[dict[str, Any]]] = {
    "JPEG": [{}, {"progressive": True}, {"quality": 30}, {"optimize": True}],
    "TIFF": [{"compression": name} for name in (None, "tiff_lzw", "tiff_deflate", "packbits")],
    "WEBP": [{"lossless": True}, {"quality": 50}],
    "PNG": [{}, {"compress_level": 0}, {"interlace": True}],
    "ICO": [{}, {"bitmap_format": "bmp"}],
    "DDS": [{}, {"pixel_format": "DXT1"}, {"pixel_format": "DXT5"}],
    "PDF": [{}],
}
FORBIDDEN_EVENTS = ("subprocess.Popen", "os.system", "os.posix_spawn", "os.exec", "os.fork")
watched_events: list[str] | None = None


def record_event(event: str, _: object) -> None:
    if watched_events is not None and event in FORBIDDEN_EVENTS:
        watched_events.append(event)


sys.addaudithook(record_event)


@contextmanager
def watch_processes() -> Iterator[list[str]]:
    """Yield a list that gets an event for each process that is started."""
    global watched_events
    watched_events = []
    try:
        yield watched_events
    finally:
        watched_events = None


def draw_image(rng: random.Random, mode: str) -> Image.Image:
    image = make_image(rng.randint(1, 90), rng.randint(1, 90), rng.randrange(1000))
    if mode == "F":
        return Image.fromarray(np.asarray(image.convert("L"), dtype=np.float32) / 255)
    if mode == "I;16":
        return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    if mode == "LAB":
        return Image.frombytes("LAB", image.size, image.tobytes())
    return image.convert(mode)


def draw_options(rng: random.Random, name: str, mode: str) -> dict[str, Any]:
    options = dict(rng.choice(OPTIONS.get(name, [{}])))
    if name in ("PNG", "TIFF", "WEBP", "JPEG", "AVIF") and rng.random() < 0.3:
        options["exif"] = Image.Exif()
        options["exif"][274] = rng.randint(1, 8)
    if name == "PNG" and rng.random() < 0.3:
        options["pnginfo"] = PngImagePlugin.PngInfo()
        options["pnginfo"].add_text("workflow", "x" * rng.randint(1, 3_000_000), zip=True)
    if (
        name in ("GIF", "WEBP", "PNG", "TIFF", "AVIF") and mode != "I;16" and rng.random() < 0.2
    ):  # Pillow clips it in animations
        options |= {"save_all": True, "append_images": [make_image(20, 20)]}
    return options


def write_sound_file(rng: random.Random) -> tuple[str, str, Image.Image, bytes]:
    """Return format, mode, image and content."""
    while True:
        name = rng.choice([*MODES, "BMP", "DIB", "PCX", "TGA", "QOI", "IM", "ICO", "ICNS", "MPO"])
        mode = rng.choice(MODES.get(name, ["RGB"]))
        image, stream = draw_image(rng, mode), io.BytesIO()
        try:
            image.save(stream, name, **draw_options(rng, name, mode))
        except (ValueError, OSError, KeyError, RuntimeError, SystemError):  # combinations that Pillow cannot write
            continue
        return name, mode, image, stream.getvalue()


def flip_bytes(rng: random.Random, content: bytearray) -> None:
    end = rng.choice([64, 512, len(content)])
    for _ in range(rng.randint(1, 8)):
        content[rng.randrange(min(end, len(content)))] = rng.randrange(256)


def truncate(rng: random.Random, content: bytearray) -> None:
    del content[rng.randrange(len(content)) :]


def write_large_number(rng: random.Random, content: bytearray) -> None:
    number = rng.choice([0, 1, 0x7FFF, 0xFFFF, 20_000, 0x7FFFFFFF, 0xFFFFFFFF])
    start = rng.randrange(min(200, len(content)))
    content[start : start + 4] = number.to_bytes(4, rng.choice(["little", "big"]))


def splice(rng: random.Random, content: bytearray) -> None:
    other = write_sound_file(rng)[3]
    content[rng.randrange(len(content)) :] = other[rng.randrange(len(other)) :]


def repeat_block(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content))
    content[start:start] = content[start : start + rng.randint(1, 200)] * rng.randint(1, 50)


def insert_zeros(rng: random.Random, content: bytearray) -> None:
    start = rng.randrange(len(content))
    content[start : start + rng.randint(1, 100)] = bytes(rng.randint(0, 100))


DAMAGES: list[Callable[[random.Random, bytearray], None]] = [
    flip_bytes,
    truncate,
    write_large_number,
    splice,
    repeat_block,
    insert_zeros,
]


def check_decoded(path: Path, decoded: Image.Image) -> None:
    pixels = np.asarray(decoded)
    with Image.open(path, formats=ALLOWED_FORMATS) as header:
        assert sorted(decoded.size) == sorted(header.size)
    assert pixels.dtype == np.uint8
    assert pixels.shape == (decoded.height, decoded.width, 3)


def check_sound(name: str, mode: str, image: Image.Image, decoded: Image.Image) -> None:
    """Check that a sound file has the pixels that were written, apart from orientation and lossy compression."""
    if name in ("ICO", "ICNS", *DOCUMENTS) or mode in ("LAB", "P", "1", "RGBA", "LA", "YCbCr", "CMYK"):
        return
    expected = image if mode not in ("F", "I;16") else Image.fromarray(scale_to_eight_bits(image, mode))
    difference = abs(np.asarray(decoded, dtype=float).mean() - np.asarray(expected.convert("RGB"), dtype=float).mean())
    assert difference < (1.01 if name in LOSSLESS else 12), (name, mode)


def scale_to_eight_bits(image: Image.Image, mode: str) -> np.ndarray:
    return (np.asarray(image, dtype=np.float64) * (255 if mode == "F" else 1 / 257)).round().astype(np.uint8)


def measure_max_bytes(path: Path) -> int:
    """Return how much memory decoding may take: by the pixels that the header claims, and the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=ALLOWED_FORMATS) as header:
                num_pixels = header.width * header.height
    except Exception:
        num_pixels = 0
    return BYTES_PER_PIXEL * num_pixels + 20 * path.stat().st_size + SPARE_BYTES


def decode_within_bounds(path: Path) -> Image.Image | str:
    """Return the image or the reason why it is broken; check that no process is started, and the memory."""
    max_bytes = measure_max_bytes(path)
    reset_peak_memory()
    previous_bytes = get_peak_memory()
    with watch_processes() as events:
        try:
            result: Image.Image | str = decode_image(path).turn_upright()
        except BrokenImageError as error:
            result = str(error)
    assert events == []
    assert get_peak_memory() - previous_bytes <= max_bytes
    return result


def check_drawn_file(folder: Path, seed: int) -> str:
    """Decode the file that `seed` draws, and return what became of it."""
    rng = random.Random(seed)
    name, mode, image, sound_content = write_sound_file(rng)
    content, damages = bytearray(sound_content), rng.sample(DAMAGES, rng.choice([0, 1, 1, 2]))
    for damage in damages:
        if content:
            damage(rng, content)
    path = folder / f"{seed}.{rng.choice(['jpg', 'png', name.lower()])}"
    path.write_bytes(content)
    result = decode_within_bounds(path)
    if isinstance(result, str):
        assert result.strip()
        assert damages or name in DOCUMENTS, result
        return "broken"
    check_decoded(path, result)
    if damages:
        return "damaged, decoded"
    check_sound(name, mode, image, result)
    assert name not in DOCUMENTS
    return "sound"


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("ignore")
def test_drawn_files_are_decoded_or_broken_within_bounds(tmp_path: Path) -> None:
    outcomes = Counter(check_drawn_file(tmp_path, seed) for seed in range(NUM_FILES))
    assert min(outcomes["sound"], outcomes["broken"], outcomes["damaged, decoded"]) > NUM_FILES // 10
