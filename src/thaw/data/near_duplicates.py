"""Images that look alike though their bytes differ: resized, compressed again, lightly retouched.

A difference hash (dHash, Krawetz 2013) is a few lines. The ImageHash package would do the same, and bring SciPy and
PyWavelets along for its other hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from thaw.data.samples import Samples

HASH_SIZE = 8
MAX_HASH_DISTANCE = 10  # bits of 128: JPEG at quality 30 and half the size changes up to 9; different photographs 30 on
MIN_CONTRAST = 12  # grey levels between the darkest and the lightest cell; below it the bits are noise
CHUNK_SIZE = 1024
FLAT_IMAGE_HASH = np.zeros(2, dtype=np.uint64)


def compute_difference_hash(image: Image.Image) -> np.ndarray:
    """uint64 [2]: whether each cell of a 9 x 9 grid is lighter than its right, and than its lower neighbour. All zero
    for an image without contrast, which resembles every other such image and is compared with none."""
    grid = np.asarray(image.convert("L").resize((HASH_SIZE + 1, HASH_SIZE + 1), Image.Resampling.BOX), dtype=np.int16)
    if np.ptp(grid) < MIN_CONTRAST:
        return FLAT_IMAGE_HASH
    bits = np.stack([grid[:-1, :-1] > grid[:-1, 1:], grid[:-1, :-1] > grid[1:, :-1]])
    return np.packbits(bits.reshape(2, -1), axis=1).view(np.uint64).ravel()


def compute_difference_hashes(images: Iterable[np.ndarray]) -> np.ndarray:
    """uint64 [images, 2] of uint8 [height, width, 3] each."""
    return np.array([compute_difference_hash(Image.fromarray(image)) for image in images])


def find_near_duplicates(samples: Samples, hashes: np.ndarray) -> Iterator[tuple[str, str]]:
    """Paths of two images of different splits whose hashes differ in MOST_DIFFERING bits at most and whose bytes are
    not equal. `looks` is uint64 [samples, 2]. Compares all pairs: 10^9 of them take 30 s on one core."""
    splits = np.array([sample.split for sample in samples.samples])
    for split, later_splits in (("train", ("val", "test")), ("val", ("test",))):
        first_positions, second_positions = (
            np.flatnonzero(splits == split),
            np.flatnonzero(np.isin(splits, later_splits)),
        )
        for position, duplicate_position in _find_similar_pairs(hashes, first_positions, second_positions):
            if samples.hashes[position] != samples.hashes[duplicate_position]:
                yield samples.samples[position].path, samples.samples[duplicate_position].path


def _find_similar_pairs(
    hashes: np.ndarray, first_positions: np.ndarray, second_positions: np.ndarray
) -> Iterator[tuple[int, int]]:
    first_positions, second_positions = (
        positions[hashes[positions].any(axis=1)] for positions in (first_positions, second_positions)
    )
    for start in range(0, len(first_positions), CHUNK_SIZE):  # in pieces, so that memory stays bounded
        chunk = first_positions[start : start + CHUNK_SIZE]
        distances = np.bitwise_count(hashes[chunk][:, None] ^ hashes[second_positions][None]).sum(axis=2)
        for row, column in np.argwhere(distances <= MAX_HASH_DISTANCE):
            yield int(chunk[row]), int(second_positions[column])
