"""Find copies of images: equal files, equal pixels, and the same photograph resized, recompressed, mirrored or cropped.

Candidates are the images that resemble each other most: neighbors of small gray thumbnails, of their crops and mirror
images, and neighbors in feature space if features are at hand. Each candidate pair is then aligned and compared pixel
by pixel (`thaw.data.registration`). Another photograph of the same thing is no copy, and neither is an image whose
brightness was edited.

Neighbors are found by blocks of matrix products: memory grows by 22 KB an image, to about 1.5 GB for 50,000 images with
features, and time by the square of their number (4 * 10^13 operations for 50,000 images).
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from thaw.data.registration import THUMBNAIL_SIZE, Alignment, align_thumbnails
from thaw.data.samples import Samples
from thaw.system.process import available_cpus

VECTOR_SIDE = 16  # pixels of the thumbnails that are compared with all others
CROP = 0.93  # of a side: halfway to a copy that lacks 14 %
VIEWS = ((1.0, (0, 0)), *((CROP, corner) for corner in ((0, 0), (-1, -1), (-1, 1), (1, -1), (1, 1))))
NUM_VIEWS = len(VIEWS)
MEAN_OFFSET = 50  # images; the mean of few images, perhaps copies, is not what all have in common
MIN_SIMILARITY = 0.5  # cosine; copies have at least 0.68, 98 % of them in pictures of equal solar cells 0.47
MAX_MIRROR_DIFFERENCE = 0.1  # an image is not aligned the other way around if that is so much less similar
NUM_THUMBNAIL_NEIGHBORS, NUM_FEATURE_NEIGHBORS = 4, 10
QUERY_CHUNK, PAIR_CHUNK = 512, 256  # bound the memory
MIN_CONTRAST = 4.0  # gray levels, standard deviation; thumbnails below it show nothing that could be compared
MIN_CORRELATION = 0.75
MAX_MISMATCH = 1.6  # 99 % of 1,600 copies are below it in each of 8 data sets
MAX_FALSE_FRACTION, MIN_TAIL_PAIRS = 0.05, 20
IS_CHANGED = 0.02  # of a side


@dataclass(frozen=True)
class CopyPair:
    """Two images that are copies of each other.

    Attributes:
        first, second: their positions.
        is_exact: whether all pixels are equal.
        difference: how they differ, in words that hold in both directions.
        score: the surer that they are copies, the higher, up to 1.
    """

    first: int
    second: int
    is_exact: bool
    difference: str
    score: float = 1.0


@dataclass(frozen=True)
class Thumbnails:
    """What is compared of the images.

    Attributes:
        gray: uint8 [images, 96, 96], the whole image squeezed into a square.
        digests: a hash of all pixels, for each image.
        sizes: int64 [images, 2], height and width of the decoded images.
    """

    gray: np.ndarray
    digests: tuple[bytes, ...]
    sizes: np.ndarray


def build_thumbnail(image: Image.Image) -> tuple[np.ndarray, bytes]:
    """Return the thumbnail of an RGB image, uint8 [96, 96], and a hash of its pixels."""
    thumbnail = image.convert("L").resize((THUMBNAIL_SIZE, THUMBNAIL_SIZE), Image.Resampling.BILINEAR)
    digest = hashlib.blake2b(f"{image.size}".encode() + image.tobytes(), digest_size=16).digest()
    return np.asarray(thumbnail), digest


def collect_thumbnails(thumbnails: Sequence[tuple[np.ndarray, bytes]], sizes: np.ndarray) -> Thumbnails:
    """Collect what `build_thumbnail` has returned; `sizes` is int64 [images, 2], height and width."""
    gray = np.array([gray for gray, _ in thumbnails], dtype=np.uint8).reshape(-1, THUMBNAIL_SIZE, THUMBNAIL_SIZE)
    return Thumbnails(gray, tuple(digest for _, digest in thumbnails), sizes)


def find_copies(samples: Samples, thumbnails: Thumbnails, features: np.ndarray | None = None) -> list[CopyPair]:
    """Find all copies, of each content the first with its exact copies, then the near copies.

    `features`, float [samples, width], add candidates. Near copies are searched among images of different pixels; of
    exact copies in several splits or classes, one of each split and class is paired with a near copy.
    """
    pairs, members = _find_exact_copies(samples, thumbnails)
    unique = np.array(sorted(members), dtype=np.int64)
    for first, second, alignment_text, score in _find_near_copies(thumbnails, features, unique):
        for pair in itertools.product(*(_list_distinct(samples, members[content]) for content in (first, second))):
            pairs.append(CopyPair(min(pair), max(pair), False, alignment_text, score))
    return pairs


def _find_exact_copies(samples: Samples, thumbnails: Thumbnails) -> tuple[list[CopyPair], dict[int, list[int]]]:
    """Return the pairs of images with equal files or pixels, and the first position of each content -> all."""
    pairs, members, first_positions = [], dict[int, list[int]](), dict[object, int]()
    for position, (file_hash, digest) in enumerate(zip(samples.hashes, thumbnails.digests, strict=True)):
        content = (digest, *thumbnails.sizes[position].tolist())
        first = first_positions.setdefault(content, position)
        members.setdefault(first, []).append(position)
        if first != position:
            is_equal = samples.hashes[first] == file_hash
            pairs.append(CopyPair(first, position, True, "equal files" if is_equal else "equal pixels, other files"))
    return pairs, members


def _list_distinct(samples: Samples, positions: Iterable[int]) -> list[int]:
    """Return the first of `positions` in each split and class."""
    firsts: dict[tuple[str, int], int] = {}
    for position in positions:
        sample = samples.samples[position]
        firsts.setdefault((sample.split, sample.label), position)
    return list(firsts.values())


def _find_near_copies(
    thumbnails: Thumbnails, features: np.ndarray | None, unique: np.ndarray
) -> Iterator[tuple[int, int, str, float]]:
    """Yield positions, difference and score of near copies among the positions `unique`."""
    kept = unique[thumbnails.gray[unique].std(axis=(1, 2)) >= MIN_CONTRAST]
    if len(kept) < 2:
        return
    gray = thumbnails.gray[kept]
    candidates = find_candidates(gray, None if features is None else features[kept])
    alignment = _align_candidates(gray, candidates)
    mismatch = np.where(alignment.correlation >= MIN_CORRELATION, alignment.mismatch, np.inf)
    is_copy = mismatch <= choose_max_mismatch(mismatch)
    pair_indices: dict[tuple[int, int], int] = {}
    for index in np.flatnonzero(is_copy)[np.argsort(alignment.mismatch[is_copy], kind="stable")]:
        pair_indices.setdefault((int(candidates[index, 0]), int(candidates[index, 1])), int(index))
    for (first, second), index in sorted(pair_indices.items()):
        positions = int(kept[first]), int(kept[second])
        sizes, is_mirrored = thumbnails.sizes[list(positions)], bool(candidates[index, 2])
        text = describe_difference(alignment.maps[index], sizes, is_mirrored)
        yield *positions, text, round(float(np.clip(alignment.correlation[index], 0, 1)), 4)


def find_candidates(gray: np.ndarray, features: np.ndarray | None = None) -> np.ndarray:
    """Return pairs that may be copies, int64 [pairs, 3]: first < second, and 1 if the second is to be mirrored.

    `gray` is uint8 [images, 96, 96], `features` float [images, width].
    """
    vectors, queries = _compute_vectors(gray)
    pairs = [_pair_neighbors(_find_nearest(views, vectors, NUM_THUMBNAIL_NEIGHBORS)) for views in queries]
    if features is not None:
        centered = _normalize((features - features.mean(0)).astype(np.float32))
        pairs.append(_pair_neighbors(_find_nearest(centered, centered, NUM_FEATURE_NEIGHBORS)))
    ends = np.unique(np.concatenate(pairs), axis=0)
    similarity = np.stack(
        [_compare_views(ends, vectors, views) for views in (queries[:NUM_VIEWS], queries[NUM_VIEWS:])]
    )
    is_candidate = (similarity >= MIN_SIMILARITY) & (similarity >= similarity.max(0) - MAX_MIRROR_DIFFERENCE)
    kept = [np.column_stack([ends[mask], np.full(mask.sum(), index)]) for index, mask in enumerate(is_candidate)]
    return np.concatenate(kept)


def _compute_vectors(gray: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return vectors of the images, float32 [images, 256], and those of NUM_VIEWS crops, then of these mirrored."""
    small, queries = _shrink_in_chunks(gray), []
    mean = _band_pass(small).sum(0) / (len(small) + MEAN_OFFSET)
    for images in (small, small[:, :, ::-1]):
        for scale, (x, y) in VIEWS:
            cropped = _build_crop(scale, y) @ images @ _build_crop(scale, x).T
            queries.append(_normalize(_band_pass(cropped) - mean))
    return queries[0], queries


def _compare_views(ends: np.ndarray, vectors: np.ndarray, queries: Sequence[np.ndarray]) -> np.ndarray:
    """Return the highest similarity of one image of each pair with a view of the other, float32 [pairs]."""
    similarity = np.full(len(ends), -1, dtype=np.float32)
    for start in range(0, len(ends), QUERY_CHUNK):
        first, second = ends[start : start + QUERY_CHUNK].T
        chunk = similarity[start : start + QUERY_CHUNK]
        for views, (left, right) in itertools.product(queries, ((first, second), (second, first))):
            np.maximum(chunk, np.einsum("ij,ij->i", views[left], vectors[right]), out=chunk)
    return similarity


def _shrink_in_chunks(gray: np.ndarray) -> np.ndarray:
    """Return float32 [images, 16, 16]."""
    factor = THUMBNAIL_SIZE // VECTOR_SIDE
    cells = gray.reshape(len(gray), VECTOR_SIDE, factor, VECTOR_SIDE, factor)
    return np.asarray(cells.mean((2, 4), dtype=np.float32))


def _band_pass(images: np.ndarray) -> np.ndarray:
    """Return vectors, float32 [images, 256], of length 1 without brightness and large shapes."""
    details = gaussian_filter(images, (0, 0.3, 0.3)) - gaussian_filter(images, (0, 3, 3))
    details -= details.mean((1, 2), keepdims=True)
    return _normalize(details.reshape(len(images), VECTOR_SIDE**2))


def _normalize(vectors: np.ndarray) -> np.ndarray:
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6))


def _build_crop(scale: float, corner: int) -> np.ndarray:
    """Return the weights, float32 [16, 16], that enlarge the fraction `scale` of an axis: in the middle for corner 0,
    at an end for -1 and 1."""
    center = (VECTOR_SIDE - 1) / 2
    positions = (np.arange(VECTOR_SIDE) - center) * scale + center + corner * (1 - scale) * VECTOR_SIDE / 2
    return np.asarray(np.maximum(0, 1 - np.abs(positions[:, None] - np.arange(VECTOR_SIDE))).astype(np.float32))


def _find_nearest(queries: np.ndarray, vectors: np.ndarray, count: int) -> np.ndarray:
    """Return the positions of the most similar other vectors, int64 [queries, at most count]."""
    count, neighbors = min(count, len(vectors) - 1), []
    for start in range(0, len(queries), QUERY_CHUNK):
        similarity = queries[start : start + QUERY_CHUNK] @ vectors.T
        rows = np.arange(len(similarity))
        similarity[rows, start + rows] = -np.inf
        neighbors.append(np.argpartition(-similarity, count - 1, axis=1)[:, :count] if count > 0 else similarity[:, :0])
    return np.concatenate([np.zeros((0, max(count, 0)), dtype=np.int64), *neighbors]).astype(np.int64)


def _pair_neighbors(neighbors: np.ndarray) -> np.ndarray:
    """Return the pairs of each image and its neighbors, int64 [pairs, 2], first < second."""
    positions = np.repeat(np.arange(len(neighbors)), neighbors.shape[1])
    return np.sort(np.stack([positions, neighbors.ravel()], axis=1), axis=1)


def _align_candidates(gray: np.ndarray, candidates: np.ndarray) -> Alignment:
    def align(start: int) -> Alignment:
        first, second, is_mirrored = candidates[start : start + PAIR_CHUNK].T
        mirrored_back = np.where(is_mirrored[:, None, None] == 1, gray[second][:, :, ::-1], gray[second])
        return align_thumbnails(gray[first], mirrored_back)

    with threadpool_limits(1), ThreadPoolExecutor(available_cpus()) as pool:  # each thread has small matrices
        parts = list(pool.map(align, range(0, max(len(candidates), 1), PAIR_CHUNK)))
    fields = ("maps", "correlation", "mismatch")
    return Alignment(*(np.concatenate([getattr(part, name) for part in parts]) for name in fields))


def choose_max_mismatch(mismatch: np.ndarray) -> float:
    """Return the largest mismatch of a copy, for the mismatches of all candidates, float [pairs].

    It is MAX_MISMATCH unless the images are so much alike that more than MAX_FALSE_FRACTION of the pairs below it would
    be no copies. Their number is extrapolated, by a power law (Hill 1975), from pairs of up to twice MAX_MISMATCH,
    which are none.
    """
    limit = 2 * MAX_MISMATCH
    logs = np.log(limit / mismatch[(mismatch > MAX_MISMATCH) & (mismatch <= limit)])
    if len(logs) < MIN_TAIL_PAIRS:
        return MAX_MISMATCH
    exponent = _fit_exponent(logs)
    num_total = len(logs) / (1 - 0.5**exponent)
    ordered = np.sort(mismatch[mismatch <= MAX_MISMATCH])
    num_false = num_total * (ordered / limit) ** exponent
    is_safe = num_false <= MAX_FALSE_FRACTION * np.arange(1, len(ordered) + 1)
    return float(ordered[is_safe].max(initial=0.0))


def _fit_exponent(logs: np.ndarray) -> float:
    """Return the most probable exponent of the power law whose `logs`, of the limit by each value, are below log 2."""
    exponents = np.linspace(1, 20, 191)
    log_likelihood = len(logs) * (np.log(exponents) - np.log(1 - 0.5**exponents)) - exponents * logs.sum()
    return float(exponents[log_likelihood.argmax()])


def describe_difference(maps: np.ndarray, sizes: np.ndarray, is_mirrored: bool) -> str:
    """Say how two copies differ.

    `maps` is float32 [4], as in `Alignment`; `sizes` is int64 [2, 2], height and width of both.
    """
    scales = np.array([maps[2], maps[0]], dtype=np.float64)  # of height and width
    visible = np.minimum(scales, 1 / scales)
    resize = float(np.exp(np.log(sizes[1] / (scales * sizes[0])).mean()))
    changes = ["mirrored"] if is_mirrored else []
    if (visible < 1 - IS_CHANGED).any():
        changes.append(f"cropped to {visible[0]:.0%} of the height and {visible[1]:.0%} of the width")
    if abs(np.log(resize)) > np.log(1 + IS_CHANGED):
        changes.append(f"resized to {min(resize, 1 / resize):.0%}")
    return ", ".join(changes) or "recompressed"
