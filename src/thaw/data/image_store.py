"""Images decoded once: one memory-mapped file of uint8 pixels that all runs and processes share, however each splits
the data set."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from PIL import __version__ as pillow_version
from rich.console import Console
from rich.progress import track

from thaw.config.errors import Problem, UserError
from thaw.data.image import BrokenImageError, decode_image
from thaw.data.preprocessing import Preprocessing, resize_image
from thaw.data.problems import MAX_ASPECT_RATIO, escape_path
from thaw.data.samples import Samples
from thaw.system.cache_folder import build_folder_once, compute_cache_key

MAX_LISTED_IMAGES = 20
CROPPED_ASPECT_RATIO = 4  # longer side to shorter; 20,000 x 10 pixels resized as they are would be 400 MB
FORMAT_VERSION = 3  # of the files; a store of another layout is built anew

DecodeResult = TypeVar("DecodeResult")


@dataclass(frozen=True)
class ImageStore:
    """Pixels of all samples, in their order, resized as the preprocessing says and not yet cropped.

    `pixels` is uint8 [all bytes]; `starts` int64 [samples]; `shapes` int64 [samples, 2] of height and width; `sizes`
    the same before resizing. `broken`: position of an image that cannot be decoded, of shape 0 x 0 -> why.
    """

    pixels: np.ndarray
    starts: np.ndarray
    shapes: np.ndarray
    sizes: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), dtype=np.int64))
    broken: Mapping[int, str] = field(default_factory=dict)

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 [height, width, 3], a view."""
        start, (height, width) = self.starts[index], self.shapes[index]
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)

    def subset(self, positions: Sequence[int]) -> ImageStore:
        """The images at `positions`; the pixels stay where they are."""
        indices = np.asarray(positions, dtype=np.int64)
        return replace(
            self, starts=self.starts[indices], shapes=self.shapes[indices], sizes=self.sizes[indices], broken={}
        )


def open_image_store(
    samples: Samples, preprocessing: Preprocessing, cache_dir: Path, skip_broken: bool = False
) -> ImageStore:
    """The store of `samples`, built unless it is there.

    Raises:
        UserFault: naming the images that cannot be decoded (with `skip_broken` only where nothing else is left), or a
            full disk.
    """
    resize_settings = {
        "resize": preprocessing.resize,
        "by": preprocessing.interpolation,
        "squash": preprocessing.squash,
    }
    first_positions, inverse = (
        samples.find_unique_contents()
    )  # not their splits: the jobs of a sweep over seeds share the store
    unique_samples = samples.subset(list(first_positions))

    def check_broken_contents(broken: Mapping[int, str]) -> Mapping[int, str]:
        broken_positions = {
            position: broken[content_index]
            for position, content_index in enumerate(inverse.tolist())
            if content_index in broken
        }
        check_broken(samples, broken_positions, skip_broken)
        return broken_positions

    key = compute_cache_key(
        images=unique_samples.hashes, pillow=pillow_version, layout=FORMAT_VERSION, **resize_settings
    )
    folder = build_folder_once(
        cache_dir / "decoded" / key, partial(_write_store, unique_samples, preprocessing, check_broken_contents)
    )
    table = np.load(folder / "table.npy", allow_pickle=False)[inverse]
    broken_contents = json.loads((folder / "broken.json").read_text(encoding="utf-8"))
    broken = check_broken_contents({int(content_index): reason for content_index, reason in broken_contents.items()})
    return ImageStore(
        np.memmap(folder / "pixels.bin", np.uint8, "r"), table[:, 0], table[:, 1:3], table[:, 3:5], broken
    )


def _write_store(
    samples: Samples, preprocessing: Preprocessing, check: Callable[[Mapping[int, str]], object], folder: Path
) -> None:
    """A row of the table is where the pixels start, their height and width, and those of the image as decoded."""
    rows, broken, start = [], {}, 0
    with (folder / "pixels.bin").open("wb") as stream:
        for position, image_or_reason in enumerate(
            iter_decoded(samples, lambda image: _resize_with_size(image, preprocessing))
        ):
            if isinstance(image_or_reason, str):
                broken[position] = image_or_reason
                rows.append((start, 0, 0, 0, 0))
                continue
            image, (width, height) = image_or_reason
            stream.write(image.tobytes())
            rows.append((start, *image.shape[:2], height, width))
            start += image.size
        stream.flush()
        os.fsync(stream.fileno())
    check(broken)
    np.save(folder / "table.npy", np.array(rows, dtype=np.int64))
    (folder / "broken.json").write_text(json.dumps(broken), encoding="utf-8")


def _resize_with_size(image: Image.Image, preprocessing: Preprocessing) -> tuple[np.ndarray, tuple[int, int]]:
    return resize_image(crop_elongated(image), preprocessing), image.size


def crop_elongated(image: Image.Image) -> Image.Image:
    """The middle of an image that is longer than MOST_ELONGATED to 1, cut to KEPT_OF_ELONGATED to 1; others whole."""
    width, height = image.size
    short_side = min(width, height)
    if max(width, height) <= MAX_ASPECT_RATIO * short_side:
        return image
    crop_width, crop_height = (
        min(width, CROPPED_ASPECT_RATIO * short_side),
        min(height, CROPPED_ASPECT_RATIO * short_side),
    )
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    return image.crop((left, top, left + crop_width, top + crop_height))


def iter_decoded(samples: Samples, transform: Callable[[Image.Image], DecodeResult]) -> Iterator[DecodeResult | str]:
    """What `keep` makes of each image, in order, in as many threads as there are cores; of one that cannot be decoded a
    string that says why."""

    def decode_path(path: str) -> DecodeResult | str:
        try:
            return transform(decode_image(samples.root / path))
        except BrokenImageError as error:
            return escape_path(str(error))

    paths = [sample.path for sample in samples.samples]
    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and resizes outside Python's lock
        for start in range(0, len(paths), 256):  # in pieces, so that decoded images do not pile up in memory
            chunk = paths[start : start + 256]
            label = f"decoding {start + len(chunk)} of {len(paths)} images"
            yield from track(
                pool.map(decode_path, chunk),
                label,
                len(chunk),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )


def check_broken(samples: Samples, broken: Mapping[int, str], skip_broken: bool) -> None:
    """Raises UserFault naming `broken`: position -> why; with `skip` only where nothing else is left."""
    if not broken or (skip_broken and len(broken) < len(samples.samples)):
        return
    texts = [f"{escape_path(samples.samples[position].path)}: {reason}" for position, reason in broken.items()]
    problems = [Problem(text) for text in texts[:MAX_LISTED_IMAGES]]
    omitted_problems = (
        [Problem(f"... and {len(broken) - MAX_LISTED_IMAGES} more")] if len(broken) > MAX_LISTED_IMAGES else []
    )
    headline = f"{len(broken)} image{'s' * (len(broken) > 1)} under {samples.root} cannot be decoded"
    raise UserError(
        f"{headline}; mend them, take them out, or leave them out by data.broken=skip.", problems + omitted_problems
    )


@dataclass(frozen=True)
class LazyImageStore:
    """The same pixels as `Store`, in the same order. `sizes` is int64 [samples, 2], height and width as decoded;
    `broken`: position of an image that cannot be decoded -> why."""

    samples: Samples
    preprocessing: Preprocessing
    sizes: np.ndarray
    broken: Mapping[int, str] = field(default_factory=dict)

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 [height, width, 3]."""
        image = decode_image(self.samples.root / self.samples.samples[index].path)
        return resize_image(crop_elongated(image), self.preprocessing)

    def subset(self, positions: Sequence[int]) -> LazyImageStore:
        return LazyImageStore(
            self.samples.subset(positions), self.preprocessing, self.sizes[np.asarray(positions, np.int64)]
        )


def open_lazy_image_store(samples: Samples, preprocessing: Preprocessing, skip_broken: bool) -> LazyImageStore:
    """Decodes every image once to find the broken ones before training starts.

    Raises:
        UserFault: naming the images that cannot be decoded, unless `skip_broken`.
    """
    sizes_or_reasons = list(iter_decoded(samples, lambda image: (image.height, image.width)))
    broken = {
        position: size_or_reason
        for position, size_or_reason in enumerate(sizes_or_reasons)
        if isinstance(size_or_reason, str)
    }
    check_broken(samples, broken, skip_broken)
    sizes = np.array(
        [(0, 0) if isinstance(size_or_reason, str) else size_or_reason for size_or_reason in sizes_or_reasons],
        dtype=np.int64,
    )
    return LazyImageStore(samples, preprocessing, sizes, broken)


def estimate_store_bytes(samples: Samples, preprocessing: Preprocessing) -> int:
    """About what the store will take: images of 4:3."""
    return round(len(samples.samples) * preprocessing.resize**2 * 3 * 4 / 3)
