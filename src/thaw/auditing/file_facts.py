"""Read what image files tell without being decoded: size, dimensions, color mode, compression, camera and name."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from thaw.data.image import ALLOWED_FORMATS

UNKNOWN = -1.0
NUMBER_PATTERN = re.compile(r"\d+")
MAX_REPEATED_NAMES = 0.2  # of the names, above which numbers in them count images per class
CAMERA_TAGS = (ExifTags.Base.Make, ExifTags.Base.Model, ExifTags.Base.Software)


@dataclass(frozen=True)
class FileFacts:
    """Facts about image files by kind, each float64 [images, values]; -1 is unknown.

    A kind that is the same for all files is left out.
    """

    values_by_kind: dict[str, np.ndarray]


@dataclass(frozen=True)
class _Header:
    num_bytes: int
    size: tuple[int, int]
    colors: str
    compression: tuple[Any, ...]
    camera: str
    date: float


def read_file_facts(root: Path, paths: Sequence[str], advance: Callable[[int], None] = lambda _: None) -> FileFacts:
    """Read the headers of the files `root/path` and their names; no pixel is decoded.

    Kinds and their values:

    - "file size": bytes
    - "image size": width, height, aspect ratio, pixels
    - "format and color mode": a number for each combination of suffix, format and mode
    - "JPEG tables": sums of the tables of brightness and color, and a number for each combination of tables,
      subsampling, order of the scans, density and kinds of metadata; also of other formats' compression
    - "camera": a number for each combination of maker, model and software, and "date": both from EXIF
    - "file name": length, counts of digits and letters, a number for each text of letters before the first digit, and
      the first and last number; the numbers not if names repeat in several folders, as they count images per class then
    """
    headers = []
    for path in paths:
        headers.append(_read_header(root / path))
        advance(1)
    sizes = np.array([header.size for header in headers], dtype=np.float64).reshape(-1, 2)
    width, height = sizes.T
    values_by_kind = {
        "file size": np.array([[header.num_bytes] for header in headers], dtype=np.float64),
        "image size": np.stack([width, height, width / np.maximum(height, 1), width * height], axis=1),
        "format and color mode": _number_values([header.colors for header in headers]),
        "JPEG tables": np.concatenate(
            [
                np.array([header.compression[:2] for header in headers], dtype=np.float64).reshape(-1, 2),
                _number_values([str(header.compression[2:]) for header in headers]),
            ],
            axis=1,
        ),
        "camera": _number_values([header.camera for header in headers]),
        "date": np.array([[header.date] for header in headers], dtype=np.float64),
        "file name": measure_names(paths),
    }
    return FileFacts({kind: values for kind, values in values_by_kind.items() if len(np.unique(values, axis=0)) > 1})


def _read_header(path: Path) -> _Header:
    """Return the header of a file; of a file that cannot be read as an image, unknown values."""
    num_bytes = path.stat().st_size if path.is_file() else 0
    try:
        with Image.open(path, formats=ALLOWED_FORMATS) as image:
            camera, date = _read_camera(image)
            colors = f"{path.suffix.lower()} {image.format} {image.mode}"
            return _Header(num_bytes, image.size, colors, _read_compression(image), camera, date)
    except Exception:  # a damaged file; Pillow raises about any exception, and the inspection reports it
        return _Header(num_bytes, (0, 0), path.suffix.lower(), (UNKNOWN, UNKNOWN), "", UNKNOWN)


def _read_compression(image: Image.Image) -> tuple[Any, ...]:
    tables: dict[int, Any] = getattr(image, "quantization", None) or {}
    sums = [float(sum(tables[index])) if index in tables else UNKNOWN for index in (0, 1)]
    layers = [tuple(layer)[1:3] for layer in getattr(image, "layer", [])]
    settings = [image.info.get(name) for name in ("progressive", "jfif_density", "dpi", "compression", "interlace")]
    kinds = sorted(str(name) for name in image.info)
    return (*sums, {index: tuple(table) for index, table in tables.items()}, layers, settings, kinds)


def _read_camera(image: Image.Image) -> tuple[str, float]:
    """Return maker, model and software as text, and the date as a number. Pillow would decode a PNG without EXIF."""
    if "exif" not in image.info and image.format != "TIFF":
        return "", UNKNOWN
    tags = image.getexif()
    digits = "".join(NUMBER_PATTERN.findall(str(tags.get(ExifTags.Base.DateTime, ""))))
    date = float(digits) if len(digits) == len("YYYYMMDDhhmmss") else UNKNOWN
    return " ".join(str(tags.get(tag, "")) for tag in CAMERA_TAGS).strip(), date


def _number_values(texts: Sequence[str]) -> np.ndarray:
    """Return the rank of each text by its frequency, float64 [texts, 1], so that a tree can separate frequent ones."""
    counts = Counter(texts)
    ranks = {text: rank for rank, text in enumerate(sorted(counts, key=lambda text: (-counts[text], text)))}
    return np.array([[ranks[text]] for text in texts], dtype=np.float64)


def measure_names(paths: Sequence[str]) -> np.ndarray:
    """Return numbers that describe the file names, float64 [images, values], as `read_file_facts` describes them.

    The folders are left out: that of a class is its name.
    """
    stems = [PurePosixPath(path).stem for path in paths]
    columns = [
        _number_values([re.split(r"\d", stem, maxsplit=1)[0] for stem in stems])[:, 0],
        np.array([len(stem) for stem in stems]),
        np.array([sum(character.isdigit() for character in stem) for stem in stems]),
        np.array([sum(character.isalpha() for character in stem) for stem in stems]),
    ]
    num_repeated = len(stems) - len(set(stems))
    if num_repeated <= MAX_REPEATED_NAMES * len(stems):
        numbers = [NUMBER_PATTERN.findall(stem) or ["-1"] for stem in stems]
        columns += [np.array([float(stem_numbers[index][:15]) for stem_numbers in numbers]) for index in (0, -1)]
    return np.stack(columns, axis=1).astype(np.float64)
