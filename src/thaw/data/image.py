"""Decode an image file as a viewer shows it: RGB, 8 bits per channel, with what turns it upright."""

from __future__ import annotations

import functools
import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import ExifTags, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, UnidentifiedImageError

from thaw.data.image_file import BrokenImageError as BrokenImageError
from thaw.data.image_file import ConcurrencyLimit, read_image_file, read_indexed_file
from thaw.system.process import get_available_memory

# Formats that Pillow decodes with its own code or with libraries that it contains, in the order in which they are
# tried: common ones first, those without a signature last. It hands EPS to Ghostscript and WMF to the system, and only
# recognizes others, such as HDF5 and MPEG.
COMMON_FORMATS = ("JPEG", "PNG", "GIF", "BMP", "DIB", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000")
RARE_FORMATS = (
    "BLP",
    "CUR",
    "DCX",
    "DDS",
    "FLI",
    "FTEX",
    "GBR",
    "ICNS",
    "ICO",
    "MSP",
    "PCX",
    "PSD",
    "QOI",
    "SGI",
    "SUN",
)
UNSIGNED_FORMATS = ("XBM", "XPM", "PIXAR", "PCD", "IM", "SPIDER", "TGA")
Image.init()
ALLOWED_FORMATS = tuple(  # a Pillow may be built without a library
    name for name in COMMON_FORMATS + RARE_FORMATS + UNSIGNED_FORMATS if name in Image.OPEN
)
IMAGE_SUFFIXES = tuple(  # MPO is a JPEG of several frames, which Pillow opens as JPEG
    sorted(suffix for suffix, name in Image.EXTENSION.items() if name in (*ALLOWED_FORMATS, "MPO"))
)
MAX_PIXELS = (
    400_000_000  # of one image: a scan of 20,000 x 20,000 takes 1.6 GB, a small file that claims more is a bomb
)
Image.MAX_IMAGE_PIXELS = MAX_PIXELS // 2  # Pillow warns above this value, and raises only above twice the value
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
# Programs that draw images write their settings as text into a PNG, megabytes of it; Pillow takes 1 MiB.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY = 64 << 20
BYTES_PER_PIXEL = 16  # while an image with transparency is converted: four copies of 4 bytes
MAX_MEMORY_FRACTION = 0.25  # of the free memory, for the images that all threads decode at once
CHUNK_ROWS = 256
PROBE_SIZE = (16, 16)
MAX_ASPECT_RATIO = 8  # longer side to shorter; an image over it is elongated
NEARLY_BLACK = 16  # of 255: an image without a larger value shows nothing, such as one of 12 bits taken for 16
EXIF_TRANSPOSES = {  # EXIF orientation -> the transposition that undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SWAPPING_TRANSPOSES = {EXIF_TRANSPOSES[orientation] for orientation in (5, 6, 7, 8)}  # these swap width and height

DecodeResult = TypeVar("DecodeResult")
_LOAD_LOCK = threading.Lock()


@dataclass(frozen=True)
class DecodedImage:
    """An image as its file stores it, or smaller.

    Attributes:
        pixels: mode RGB, not turned upright.
        size: width and height in the file.
        denominator: 1, or 2, 4 or 8 if `pixels` are a JPEG decoded at that fraction of its size.
        transpose: what turns the image upright, from its EXIF orientation; None if it is upright.
    """

    pixels: Image.Image
    size: tuple[int, int]
    denominator: int = 1
    transpose: Image.Transpose | None = None

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the whole image as a viewer shows it."""
        width, height = self.size
        return (height, width) if self.transpose in SWAPPING_TRANSPOSES else (width, height)

    def turn_upright(self) -> Image.Image:
        """Return the pixels as a viewer shows them."""
        return self.pixels if self.transpose is None else self.pixels.transpose(self.transpose)


def is_elongated(width: int, height: int) -> bool:
    """Return whether the aspect ratio is over MAX_ASPECT_RATIO."""
    return max(width, height) > MAX_ASPECT_RATIO * min(width, height)


def wrap_image(image: Image.Image) -> DecodedImage:
    """Wrap an upright RGB image."""
    return DecodedImage(image, image.size)


def decode_image(path: Path, min_side: int | None = None) -> DecodedImage:
    """Decode the first frame of `path`.

    Transparent pixels are composed on white, and values of more than 8 bits are scaled rather than clipped, by a rule
    that depends on this image alone:

    - 16 bits: 65535 is white; of a TIFF with fewer BitsPerSample, their largest value.
    - Floating point: 1 is white if all values are from 0 to 1.
    - Other floating-point values and integers of 32 bits: 255 is white up to 255, and 65535 up to 65535.

    With `min_side`, a JPEG that is not elongated is decoded at 1/2, 1/4 or 1/8 of its size if both sides then have at
    least `min_side` pixels: libjpeg computes a mean of 2 x 2, 4 x 4 or 8 x 8 pixels from the lowest frequencies.

    Raises:
        BrokenImageError: if the file cannot be read or decoded, has more than MAX_PIXELS pixels, or has values of 32
            bits without a known scale: negative, not finite, larger, or so small that the image would be nearly black.
    """
    with read_image_file(path) as content:
        return _decode(content, path.name, lambda decoded: decoded, min_side)


def decode_indexed(
    root: Path,
    path: str,
    file_hash: str,
    transform: Callable[[DecodedImage], DecodeResult],
    min_side: int | None = None,
) -> DecodeResult:
    """Return `transform(decoded)` of `root/path`, decoded as by `decode_image`.

    `file_hash` is the hash of the file from `hash_image_file`. Threads that decode large images wait for each other.

    Raises:
        BrokenImageError: as `decode_image`.
        UserError: if the file has changed since it was hashed, or is gone.
    """
    with read_indexed_file(root, path, file_hash) as content:
        return _decode(content, Path(path).name, transform, min_side)


def _decode(
    content: bytes, name: str, transform: Callable[[DecodedImage], DecodeResult], min_side: int | None
) -> DecodeResult:
    with _raise_broken(name):
        image = Image.open(io.BytesIO(content), formats=ALLOWED_FORMATS)
    with _get_pixel_limit().hold(image.width * image.height):
        with _raise_broken(name):
            decoded = _load(image, min_side)
        return transform(decoded)


def convert_opened_image(image: Image.Image) -> DecodedImage:
    """Convert an image that the caller has opened, exactly as `decode_image` decodes its file.

    Raises:
        BrokenImageError: as `decode_image`.
    """
    with _raise_broken("the image"):
        with _LOAD_LOCK:  # Pillow reads the file of an image at its first use, and not twice at once
            image.load()
        return _load(image)


def _load(image: Image.Image, min_side: int | None = None) -> DecodedImage:
    file_size, denominator = image.size, 1
    if min_side is not None and isinstance(image, JpegImagePlugin.JpegImageFile) and not is_elongated(*image.size):
        draft = image.draft(None, (min_side, min_side))
        denominator = round(file_size[0] / draft[1][2]) if draft else 1
    image.load()
    transpose = _find_transpose(image)
    rgb_image = _convert_mode(image)
    return DecodedImage(rgb_image, file_size if denominator > 1 else rgb_image.size, denominator, transpose)


@functools.cache
def _get_pixel_limit() -> ConcurrencyLimit:
    return ConcurrencyLimit(int(MAX_MEMORY_FRACTION * get_available_memory() / BYTES_PER_PIXEL))


@contextmanager
def _raise_broken(name: str) -> Iterator[None]:
    """Turn every exception of a decoder into a BrokenImageError. Damaged files raise about any."""
    try:
        yield
    except BrokenImageError:
        raise
    except UnidentifiedImageError as error:
        raise BrokenImageError(f"cannot identify image file {name!r}") from error
    except MemoryError as error:
        raise BrokenImageError("it takes more memory than there is") from error
    except Exception as error:
        raise BrokenImageError(str(error) or type(error).__name__) from error


def _find_transpose(image: Image.Image) -> Image.Transpose | None:
    """Return what undoes the EXIF orientation. ImageOps.exif_transpose() also rewrites the EXIF data, and fails on tags
    of a wrong type."""
    try:
        return EXIF_TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # viewers ignore damaged EXIF data as well; Pillow raises about any exception for it
        return None


def _convert_mode(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _convert_to_eight_bits(image)
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _convert_to_eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    scale, pixels = 255 / _find_white_value(image, values), np.empty(values.shape, np.uint8)
    for start in range(0, len(values), CHUNK_ROWS):  # float64 of all rows would take 8 bytes per pixel
        rows = slice(start, start + CHUNK_ROWS)
        pixels[rows] = (values[rows].astype(np.float64) * scale).clip(0, 255).round()
    return Image.fromarray(pixels)


def _find_white_value(image: Image.Image, values: np.ndarray) -> float:
    """Return the value that is white."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        bits = getattr(image, "tag_v2", {}).get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
        return float(2**bits - 1)
    lowest, highest = float(values.min()), float(values.max())
    if image.mode == "F" and lowest >= 0 and highest <= 1:
        return 1
    white_value = 255 if highest <= 255 else 65535
    is_on_scale = lowest >= 0 and highest <= white_value  # false for NaN
    if not is_on_scale or 0 < highest * 255 / white_value <= NEARLY_BLACK:
        raise BrokenImageError(
            f"its values from {lowest:g} to {highest:g} have no known scale: save it with 8 or 16 bits, or as floating "
            "point from 0 to 1"
        )
    return white_value


def is_nearly_black(image: Image.Image) -> bool:
    """Return whether an RGB image has no value above NEARLY_BLACK."""
    probe = image.resize(PROBE_SIZE, Image.Resampling.NEAREST)  # all pixels take a third of the time of decoding
    return _find_largest(probe) <= NEARLY_BLACK and _find_largest(image) <= NEARLY_BLACK


def _find_largest(image: Image.Image) -> int:
    return int(np.max(image.getextrema()))
