"""Decode the images of a data set: once, to a memory-mapped file of uint8 pixels that all runs and processes share
however they split the data set, or at every access."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import __version__ as pillow_version

from thaw.config.errors import Problem, UserError
from thaw.data.image import DecodedImage, decode_indexed, is_nearly_black
from thaw.data.image_file import BrokenImageError
from thaw.data.preprocessing import Preprocessing
from thaw.data.readers import escape_path
from thaw.data.resizing import resize_image
from thaw.data.sample_table import HashTable
from thaw.data.samples import Samples
from thaw.system.cache_checksums import discard_if_damaged, write_checksums
from thaw.system.cache_folder import build_folder_once, compute_cache_key, raise_write_errors
from thaw.system.read_ahead import read_ahead
from thaw.system.reporter import SILENT, Reporter

MAX_LISTED_IMAGES = 20
MAX_PENDING = 256  # decoded images that wait to be used
FORMAT_VERSION = 5  # of the files; a store of another version is built again
UNMEASURED = (0, 0, False)  # what a broken image has instead of the result of `measure_image`

DecodeResult = TypeVar("DecodeResult")


@dataclass(frozen=True)
class ImageStore:
    """Pixels of all samples in their order, resized as the preprocessing requires but not cropped.

    Attributes:
        pixels: uint8 [bytes], all images one after another.
        starts: int64 [samples], where each image starts in `pixels`.
        shapes: int64 [samples, 2], height and width of each image in `pixels`; 0 for a broken image.
        sizes: int64 [samples, 2], height and width before resizing.
        nearly_black: bool [samples], from `is_nearly_black`.
        broken: position of each image that cannot be decoded -> reason.
    """

    pixels: np.ndarray
    starts: np.ndarray
    shapes: np.ndarray
    sizes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    nearly_black: np.ndarray = field(default_factory=lambda: np.zeros(0, dtype=bool))
    broken: Mapping[int, str] = field(default_factory=dict)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the image as a view, uint8 [height, width, 3]."""
        start, (height, width) = self.starts[index], self.shapes[index]
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)

    def subset(self, positions: Sequence[int]) -> ImageStore:
        """Return the images at `positions`, none of which may be broken, without copying pixels."""
        indices = np.asarray(positions, dtype=np.int64)
        columns = {name: getattr(self, name)[indices] for name in ("starts", "shapes", "sizes", "nearly_black")}
        return replace(self, **columns, broken={})


@dataclass(frozen=True)
class LazyImageStore:
    """The same images as those of `ImageStore`, decoded at every access.

    Attributes:
        samples: the images, in their order.
        preprocessing: how they are resized.
        sizes: int64 [samples, 2], height and width before resizing.
        nearly_black: bool [samples], from `is_nearly_black`.
        broken: position of each image that cannot be decoded -> reason.
    """

    samples: Samples
    preprocessing: Preprocessing
    sizes: np.ndarray
    nearly_black: np.ndarray
    broken: Mapping[int, str] = field(default_factory=dict)

    def __getitem__(self, index: int) -> np.ndarray:
        """Return the image, uint8 [height, width, 3].

        Raises:
            UserError: if the file has changed since it was indexed, or is gone.
        """
        path, file_hash = self.samples.samples[index].path, self.samples.hashes[index]
        min_side = self.preprocessing.min_decoded_side
        return decode_indexed(
            self.samples.root, path, file_hash, lambda decoded: resize_image(decoded, self.preprocessing), min_side
        )

    def subset(self, positions: Sequence[int]) -> LazyImageStore:
        """Return the images at `positions`, none of which may be broken."""
        indices = np.asarray(positions, dtype=np.int64)
        columns = {name: getattr(self, name)[indices] for name in ("sizes", "nearly_black")}
        return replace(self, samples=self.samples.subset(indices), **columns, broken={})


def estimate_store_bytes(samples: Samples, preprocessing: Preprocessing) -> int:
    """Estimate the size of an image store, for images with an aspect ratio of 4:3."""
    return round(len(samples.samples) * preprocessing.resize**2 * 3 * 4 / 3)


def open_image_store(
    samples: Samples,
    preprocessing: Preprocessing,
    cache_dir: Path,
    skip_broken: bool = False,
    reporter: Reporter = SILENT,
) -> ImageStore:
    """Open the store of `samples`, after building it if it does not exist or is damaged.

    Raises:
        UserError: if images cannot be decoded (with `skip_broken` only if no other is left) or have changed since they
            were indexed, or if the disk is full.
    """
    first_positions, content_indices = samples.find_unique_contents()

    def write_checked(folder: Path) -> None:
        broken_contents = _write_store(samples.subset(first_positions), preprocessing, folder, reporter)
        check_broken(samples, _map_to_positions(broken_contents, content_indices), skip_broken)
        write_checksums(folder, key)

    key = _compute_store_key(samples.hashes.subset(first_positions), preprocessing)
    folder = cache_dir / "decoded" / key
    with raise_write_errors(folder):
        if discard_if_damaged(folder, reporter):
            reporter.warn(f"the decoded images in {folder} were damaged and are decoded again")
    build_folder_once(folder, write_checked)
    pixels = np.memmap(folder / "pixels.bin", np.uint8, "r")
    table = np.load(folder / "table.npy", allow_pickle=False)[content_indices]
    broken_contents = json.loads((folder / "broken.json").read_text(encoding="utf-8"))
    broken = _map_to_positions({int(index): reason for index, reason in broken_contents.items()}, content_indices)
    check_broken(samples, broken, skip_broken)  # it may have been built with skip_broken
    return ImageStore(pixels, table[:, 0], table[:, 1:3], table[:, 3:5], table[:, 5] > 0, broken)


def _compute_store_key(unique_hashes: HashTable, preprocessing: Preprocessing) -> str:
    """The key holds no splits: the jobs of a sweep over seeds share the store."""
    return compute_cache_key(
        images=unique_hashes.compute_digest(),
        pillow=pillow_version,
        layout=FORMAT_VERSION,
        resize=preprocessing.resize,
        by=preprocessing.interpolation,
        squash=preprocessing.squash,
        decoding=preprocessing.decoding,
    )


def _map_to_positions(broken_contents: Mapping[int, str], content_indices: np.ndarray) -> dict[int, str]:
    """Map the position of each sample whose content is broken to the reason."""
    return {
        position: broken_contents[content_index]
        for position, content_index in enumerate(content_indices.tolist())
        if content_index in broken_contents
    }


def _write_store(samples: Samples, preprocessing: Preprocessing, folder: Path, reporter: Reporter) -> dict[int, str]:
    """Write pixels and table, and return position -> reason of broken images.

    A row of the table is the start of the pixels, their height and width, and what `measure_image` returns.
    """

    def resize(decoded: DecodedImage) -> tuple[np.ndarray, tuple[int, int, bool]]:
        return resize_image(decoded, preprocessing), measure_image(decoded)

    rows, broken, start = [], {}, 0
    results = iter_decoded(samples, resize, preprocessing.min_decoded_side, reporter)
    with (folder / "pixels.bin").open("wb") as stream:
        for position, image_or_reason in enumerate(results):
            if isinstance(image_or_reason, str):
                broken[position] = image_or_reason
                rows.append((start, 0, 0, *UNMEASURED))
                continue
            image, measurements = image_or_reason
            stream.write(image.tobytes())
            rows.append((start, *image.shape[:2], *measurements))
            start += image.size
    np.save(folder / "table.npy", np.array(rows, dtype=np.int64))
    (folder / "broken.json").write_text(json.dumps(broken), encoding="utf-8")
    return broken


def open_lazy_image_store(
    samples: Samples, preprocessing: Preprocessing, skip_broken: bool, reporter: Reporter = SILENT
) -> LazyImageStore:
    """Open a store that decodes at every access, after decoding every image once to find the broken ones.

    Raises:
        UserError: if images cannot be decoded (with `skip_broken` only if no other is left).
    """
    results = list(iter_decoded(samples, measure_image, preprocessing.min_decoded_side, reporter))
    broken = {position: result for position, result in enumerate(results) if isinstance(result, str)}
    check_broken(samples, broken, skip_broken)
    rows = [UNMEASURED if isinstance(result, str) else result for result in results]
    table = np.array(rows, dtype=np.int64)
    return LazyImageStore(samples, preprocessing, table[:, :2], table[:, 2] > 0, broken)


def measure_image(decoded: DecodedImage) -> tuple[int, int, bool]:
    """Return height and width of the upright image, and whether it is nearly black."""
    width, height = decoded.upright_size
    return height, width, is_nearly_black(decoded.pixels)


def iter_decoded(
    samples: Samples,
    transform: Callable[[DecodedImage], DecodeResult],
    min_side: int | None = None,
    reporter: Reporter = SILENT,
) -> Iterator[DecodeResult | str]:
    """Yield `transform(decoded)` for each image in order, or the reason why it cannot be decoded.

    Images are decoded as by `decode_image` and transformed in threads.

    Raises:
        UserError: if a file has changed since it was indexed, or is gone.
    """

    def decode(position: int) -> DecodeResult | str:
        try:
            path, file_hash = samples.samples[position].path, samples.hashes[position]
            return decode_indexed(samples.root, path, file_hash, transform, min_side)
        except BrokenImageError as error:
            return escape_path(str(error))

    num_images = len(samples.samples)
    with reporter.progress("decoding images", num_images) as advance:
        for result in read_ahead(decode, range(num_images), MAX_PENDING):
            yield result
            advance(1)


def check_broken(samples: Samples, broken: Mapping[int, str], skip_broken: bool) -> None:
    """Check that no image is broken, or with `skip_broken` that another one is left; `broken`: position -> reason.

    Raises:
        UserError: naming the broken images.
    """
    if not broken or (skip_broken and len(broken) < len(samples.samples)):
        return
    descriptions = [f"{escape_path(samples.samples[position].path)}: {reason}" for position, reason in broken.items()]
    num_omitted = len(broken) - MAX_LISTED_IMAGES
    subjects = descriptions[:MAX_LISTED_IMAGES] + ([f"... and {num_omitted} more"] if num_omitted > 0 else [])
    headline = f"{len(broken)} image{'s' * (len(broken) > 1)} under {samples.root} cannot be decoded"
    fix = "repair or remove them, or skip them with data.broken=skip"
    raise UserError(f"{headline}; {fix}.", [Problem(subject) for subject in subjects])
