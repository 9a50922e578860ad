"""Find images that look alike although their bytes differ: resized, recompressed or slightly edited copies.

Images are compared by a difference hash (dHash, Krawetz 2013). The ImageHash package has it too, but depends on SciPy
and PyWavelets for its other hashes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from thaw.data.samples import Samples

HASH_SIZE = 8
MAX_HASH_DISTANCE = 10  # of 128 bits: JPEG of quality 30 at half the size changes up to 9, another photo at least 30
MIN_CONTRAST = 12  # gray levels between the darkest and the brightest cell; below it the bits are noise
CHUNK_SIZE = 1024
FLAT_IMAGE_HASH = np.zeros(2, dtype=np.uint64)


def compute_difference_hash(image: Image.Image) -> np.ndarray:
    """Return 128 bits, uint64 [2]: whether each cell of a 9 x 9 grid is brighter than its right and lower neighbors.

    An image without contrast has the hash 0 and is not compared with any other: it would resemble all of its kind.
    """
    grid = np.asarray(image.convert("L").resize((HASH_SIZE + 1, HASH_SIZE + 1), Image.Resampling.BOX), dtype=np.int16)
    if np.ptp(grid) < MIN_CONTRAST:
        return FLAT_IMAGE_HASH
    bits = np.stack([grid[:-1, :-1] > grid[:-1, 1:], grid[:-1, :-1] > grid[1:, :-1]])
    return np.packbits(bits.reshape(2, -1), axis=1).view(np.uint64).ravel()


def compute_difference_hashes(images: Iterable[np.ndarray]) -> np.ndarray:
    """Return the hashes, uint64 [images, 2], of images of uint8 [height, width, 3]."""
    return np.array([compute_difference_hash(Image.fromarray(image)) for image in images])


def find_near_duplicates(samples: Samples, hashes: np.ndarray) -> Iterator[tuple[str, str]]:
    """Yield the paths of two images in different splits whose hashes differ in at most MAX_HASH_DISTANCE bits and whose
    files differ.

    `hashes` is uint64 [samples, 2]. All pairs are compared: 10^9 of them take 30 s on one core.
    """
    splits = np.array([sample.split for sample in samples.samples])
    for split, later_splits in (("train", ("val", "test")), ("val", ("test",))):
        first_positions = np.flatnonzero(splits == split)
        second_positions = np.flatnonzero(np.isin(splits, later_splits))
        for position, duplicate_position in _find_similar_pairs(hashes, first_positions, second_positions):
            if samples.hashes[position] != samples.hashes[duplicate_position]:
                yield samples.samples[position].path, samples.samples[duplicate_position].path


def _find_similar_pairs(
    hashes: np.ndarray, first_positions: np.ndarray, second_positions: np.ndarray
) -> Iterator[tuple[int, int]]:
    first_positions = first_positions[hashes[first_positions].any(axis=1)]
    second_positions = second_positions[hashes[second_positions].any(axis=1)]
    for start in range(0, len(first_positions), CHUNK_SIZE):  # in chunks, to bound the memory
        chunk = first_positions[start : start + CHUNK_SIZE]
        distances = np.bitwise_count(hashes[chunk][:, None] ^ hashes[second_positions][None]).sum(axis=2)
        for row, column in np.argwhere(distances <= MAX_HASH_DISTANCE):
            yield int(chunk[row]), int(second_positions[column])
