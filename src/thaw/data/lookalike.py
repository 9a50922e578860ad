"""Images that look alike though their bytes differ: resized, compressed again, lightly retouched.

A difference hash (dHash, Krawetz 2013) is a few lines. The ImageHash package would do the same, and bring SciPy and
PyWavelets along for its other hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from thaw.data.samples import Samples

SIDE = 8
MOST_DIFFERING = 10  # bits of 128: JPEG at quality 30 and half the size changes up to 9; different photographs 30 on
LEAST_CONTRAST = 12  # grey levels between the darkest and the lightest cell; below it the bits are noise
PIECE = 1024
FLAT = np.zeros(2, dtype=np.uint64)


def difference_hash(image: Image.Image) -> np.ndarray:
    """uint64 [2]: whether each cell of a 9 x 9 grid is lighter than its right, and than its lower neighbour. All zero
    for an image without contrast, which resembles every other such image and is compared with none."""
    grid = np.asarray(image.convert("L").resize((SIDE + 1, SIDE + 1), Image.Resampling.BOX), dtype=np.int16)
    if np.ptp(grid) < LEAST_CONTRAST:
        return FLAT
    bits = np.stack([grid[:-1, :-1] > grid[:-1, 1:], grid[:-1, :-1] > grid[1:, :-1]])
    return np.packbits(bits.reshape(2, -1), axis=1).view(np.uint64).ravel()


def difference_hashes(images: Iterable[np.ndarray]) -> np.ndarray:
    """uint64 [images, 2] of uint8 [height, width, 3] each."""
    return np.array([difference_hash(Image.fromarray(image)) for image in images])


def near_duplicates(samples: Samples, looks: np.ndarray) -> Iterator[tuple[str, str]]:
    """Paths of two images of different splits whose hashes differ in MOST_DIFFERING bits at most and whose bytes are
    not equal. `looks` is uint64 [samples, 2]. Compares all pairs: 10^9 of them take 30 s on one core."""
    splits = np.array([sample.split for sample in samples.samples])
    for split, later in (("train", ("val", "test")), ("val", ("test",))):
        first, second = np.flatnonzero(splits == split), np.flatnonzero(np.isin(splits, later))
        for one, other in _alike(looks, first, second):
            if samples.hashes[one] != samples.hashes[other]:
                yield samples.samples[one].path, samples.samples[other].path


def _alike(looks: np.ndarray, first: np.ndarray, second: np.ndarray) -> Iterator[tuple[int, int]]:
    first, second = (places[looks[places].any(axis=1)] for places in (first, second))
    for begin in range(0, len(first), PIECE):  # in pieces, so that memory stays bounded
        piece = first[begin : begin + PIECE]
        differing = np.bitwise_count(looks[piece][:, None] ^ looks[second][None]).sum(axis=2)
        for row, column in np.argwhere(differing <= MOST_DIFFERING):
            yield int(piece[row]), int(second[column])
