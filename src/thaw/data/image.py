"""Decode an image file as a viewer shows it: upright, RGB, 8 bits per channel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import ExifTags, Image

Image.MAX_IMAGE_PIXELS = (
    400_000_000  # Pillow's limit against decompression bombs, raised to allow scans of 20,000 x 20,000
)
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
EXIF_TRANSPOSES = {  # EXIF orientation -> the transposition that undoes it
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class BrokenImageError(Exception):
    """The file cannot be decoded; the message contains the reason."""


def decode_image(path: Path) -> Image.Image:
    """Decode the first frame of `path` in mode RGB.

    EXIF orientation is applied, transparent pixels are composed on white, and 16-bit values are scaled to 8 bits rather
    than clipped.

    Raises:
        BrokenImageError: if the file is missing, empty, truncated or not an image.
    """
    try:
        with Image.open(path, formats=ALLOWED_FORMATS) as image:
            image.load()
            return _convert_to_rgb(_apply_exif_orientation(image))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        reason = "the file is empty" if path.is_file() and path.stat().st_size == 0 else str(error)
        raise BrokenImageError(reason.replace(str(path), path.name)) from error


def _apply_exif_orientation(image: Image.Image) -> Image.Image:
    """Undo the EXIF orientation. ImageOps.exif_transpose() rewrites the EXIF too, and fails on tags of a wrong type."""
    transpose = EXIF_TRANSPOSES.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    return image if transpose is None else image.transpose(transpose)


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        image = _convert_to_eight_bits(image)
    if image.mode in ("LA", "PA", "RGBA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def _convert_to_eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image, dtype=np.float64)
    max_value = 65535 if image.mode.startswith("I;16") or values.max(initial=0) > 255 else 255
    return Image.fromarray((values * (255 / max_value)).clip(0, 255).round().astype(np.uint8))
