"""Images decoded once: one memory-mapped file of uint8 pixels that all runs and processes share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import __version__ as pillow_version
from rich.console import Console
from rich.progress import track

from thaw.config.faults import Fault, UserFault
from thaw.data.cache import complete_folder, key_of
from thaw.data.image import BrokenImage, decoded
from thaw.data.preprocessing import Preprocessing, resized
from thaw.data.samples import Samples

MOST_NAMED = 20


@dataclass(frozen=True)
class Store:
    """Pixels of all samples, in their order, resized as the preprocessing says and not yet cropped.

    `pixels` is uint8 [all bytes]; `starts` int64 [samples]; `shapes` int64 [samples, 2] of height and width.
    """

    pixels: np.ndarray
    starts: np.ndarray
    shapes: np.ndarray

    def __getitem__(self, index: int) -> np.ndarray:
        """uint8 [height, width, 3], a view."""
        start, (height, width) = self.starts[index], self.shapes[index]
        return self.pixels[start : start + height * width * 3].reshape(height, width, 3)


def store_of(samples: Samples, preprocessing: Preprocessing, cache: Path) -> Store:
    """The store of `samples`, built unless it is there.

    Raises:
        UserFault: naming the images that cannot be decoded, or a full disk.
    """
    how = {"resize": preprocessing.resize, "by": preprocessing.interpolation, "squash": preprocessing.squash}
    key = key_of(fingerprint=samples.fingerprint, pillow=pillow_version, **how)
    folder = complete_folder(cache / "decoded" / key, partial(_build, samples, preprocessing))
    table = np.load(folder / "table.npy", allow_pickle=False)
    return Store(np.memmap(folder / "pixels.bin", np.uint8, "r"), table[:, 0], table[:, 1:])


def _build(samples: Samples, preprocessing: Preprocessing, folder: Path) -> None:
    shapes, broken = [], []
    with (folder / "pixels.bin").open("wb") as stream:
        for image in _decoded_in_order(samples, preprocessing):
            if isinstance(image, str):
                broken.append(image)
                continue
            stream.write(image.tobytes())
            shapes.append(image.shape[:2])
        stream.flush()
        os.fsync(stream.fileno())
    if broken:
        raise _broken_images(samples, broken)
    sizes = [height * width * 3 for height, width in shapes]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    np.save(folder / "table.npy", np.column_stack([starts, np.array(shapes)]).astype(np.int64))


def _decoded_in_order(samples: Samples, preprocessing: Preprocessing) -> Iterator[np.ndarray | str]:
    def one(path: str) -> np.ndarray | str:
        try:
            return resized(decoded(samples.root / path), preprocessing)
        except BrokenImage as error:
            return f"{path}: {error}"

    paths = [sample.path for sample in samples.samples]
    console = Console(stderr=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow decodes and resizes outside Python's lock
        for begin in range(0, len(paths), 256):  # in pieces, so that decoded images do not pile up in memory
            piece = paths[begin : begin + 256]
            label = f"decoding {begin + len(piece)} of {len(paths)} images"
            yield from track(
                pool.map(one, piece),
                label,
                len(piece),
                console=console,
                transient=True,
                disable=not console.is_terminal,
            )


def _broken_images(samples: Samples, broken: list[str]) -> UserFault:
    named = [Fault(text) for text in broken[:MOST_NAMED]]
    more = [Fault(f"... and {len(broken) - MOST_NAMED} more")] if len(broken) > MOST_NAMED else []
    headline = f"{len(broken)} images under {samples.root} cannot be decoded; mend them or take them out."
    return UserFault(headline, named + more)
