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

from thaw.config.faults import Fault, UserFault
from thaw.data.cache import complete_folder, key_of
from thaw.data.image import BrokenImage, decoded
from thaw.data.preprocessing import Preprocessing, resized
from thaw.data.problems import MOST_ELONGATED, printable
from thaw.data.samples import Samples

MOST_NAMED = 20
KEPT_OF_ELONGATED = 4  # longer side to shorter; 20,000 x 10 pixels resized as they are would be 400 MB
LAYOUT = 3  # of the files; a store of another layout is built anew

Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Store:
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

    def only(self, positions: Sequence[int]) -> Store:
        """The images at `positions`; the pixels stay where they are."""
        places = np.asarray(positions, dtype=np.int64)
        return replace(
            self, starts=self.starts[places], shapes=self.shapes[places], sizes=self.sizes[places], broken={}
        )


def store_of(samples: Samples, preprocessing: Preprocessing, cache: Path, skip_broken: bool = False) -> Store:
    """The store of `samples`, built unless it is there.

    Raises:
        UserFault: naming the images that cannot be decoded (with `skip_broken` only where nothing else is left), or a
            full disk.
    """
    how = {"resize": preprocessing.resize, "by": preprocessing.interpolation, "squash": preprocessing.squash}
    first, which = samples.contents()  # not their splits: the jobs of a sweep over seeds share the store
    different = samples.only(list(first))

    def checked(broken: Mapping[int, str]) -> Mapping[int, str]:
        found = {place: broken[content] for place, content in enumerate(which.tolist()) if content in broken}
        check_broken(samples, found, skip_broken)
        return found

    key = key_of(images=different.hashes, pillow=pillow_version, layout=LAYOUT, **how)
    folder = complete_folder(cache / "decoded" / key, partial(_build, different, preprocessing, checked))
    table = np.load(folder / "table.npy", allow_pickle=False)[which]
    named = json.loads((folder / "broken.json").read_text(encoding="utf-8"))
    broken = checked({int(content): why for content, why in named.items()})
    return Store(np.memmap(folder / "pixels.bin", np.uint8, "r"), table[:, 0], table[:, 1:3], table[:, 3:5], broken)


def _build(
    samples: Samples, preprocessing: Preprocessing, check: Callable[[Mapping[int, str]], object], folder: Path
) -> None:
    """A row of the table is where the pixels start, their height and width, and those of the image as decoded."""
    rows, broken, start = [], {}, 0
    with (folder / "pixels.bin").open("wb") as stream:
        for position, found in enumerate(each_decoded(samples, lambda image: _resized_with_size(image, preprocessing))):
            if isinstance(found, str):
                broken[position] = found
                rows.append((start, 0, 0, 0, 0))
                continue
            image, (width, height) = found
            stream.write(image.tobytes())
            rows.append((start, *image.shape[:2], height, width))
            start += image.size
        stream.flush()
        os.fsync(stream.fileno())
    check(broken)
    np.save(folder / "table.npy", np.array(rows, dtype=np.int64))
    (folder / "broken.json").write_text(json.dumps(broken), encoding="utf-8")


def _resized_with_size(image: Image.Image, preprocessing: Preprocessing) -> tuple[np.ndarray, tuple[int, int]]:
    return resized(trimmed(image), preprocessing), image.size


def trimmed(image: Image.Image) -> Image.Image:
    """The middle of an image that is longer than MOST_ELONGATED to 1, cut to KEPT_OF_ELONGATED to 1; others whole."""
    width, height = image.size
    short = min(width, height)
    if max(width, height) <= MOST_ELONGATED * short:
        return image
    across, down = min(width, KEPT_OF_ELONGATED * short), min(height, KEPT_OF_ELONGATED * short)
    left, top = (width - across) // 2, (height - down) // 2
    return image.crop((left, top, left + across, top + down))


def each_decoded(samples: Samples, keep: Callable[[Image.Image], Kept]) -> Iterator[Kept | str]:
    """What `keep` makes of each image, in order, in as many threads as there are cores; of one that cannot be decoded a
    string that says why."""

    def one(path: str) -> Kept | str:
        try:
            return keep(decoded(samples.root / path))
        except BrokenImage as error:
            return printable(str(error))

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


def check_broken(samples: Samples, broken: Mapping[int, str], skip: bool) -> None:
    """Raises UserFault naming `broken`: position -> why; with `skip` only where nothing else is left."""
    if not broken or (skip and len(broken) < len(samples.samples)):
        return
    texts = [f"{printable(samples.samples[position].path)}: {why}" for position, why in broken.items()]
    named = [Fault(text) for text in texts[:MOST_NAMED]]
    more = [Fault(f"... and {len(broken) - MOST_NAMED} more")] if len(broken) > MOST_NAMED else []
    headline = f"{len(broken)} image{'s' * (len(broken) > 1)} under {samples.root} cannot be decoded"
    raise UserFault(f"{headline}; mend them, take them out, or leave them out by data.broken=skip.", named + more)
