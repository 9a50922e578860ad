"""Align pairs of thumbnails that may show the same photograph, resized or cropped differently.

A crop maps the pixels of one thumbnail onto the other by a scale and a shift of each axis. They are searched by
cross-correlation on 32 pixels and refined by Gauss-Newton steps on 32, 48 and 96 pixels (Lucas and Kanade 1981), from
no change as well. Pairs that differ too much on 32 or 48 pixels are not refined further.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter

THUMBNAIL_SIZE = 96  # pixels; 32 and 48 divide it
SCALES = np.exp(0.055 * np.arange(-5, 6)).astype(np.float32)  # 0.76 to 1.32: an axis cut by a quarter
MIN_SCALE, MAX_SCALE, MAX_SHIFT = 0.7, 1.43, 0.3  # the shift as a fraction of a side
MAX_SCALE_STEP, MAX_SHIFT_STEP, DAMPING = 0.08, 0.05, 1e-3  # of one Gauss-Newton step
IDENTITY = np.array([1, 0, 1, 0], dtype=np.float32)
IDENTITY_BONUS = 0.02  # of two alignments about as good, the one that started from no change is taken
SIZES = (32, 48, 96)
MAX_MISMATCHES = {32: 4.0, 48: 2.6, 96: np.inf}  # in pixels of a side
MIN_CORRELATION = 0.5  # copies have at least 0.79
BLUR, MAX_ERROR = 1 / 64, 0.2  # of a side; pixels
NOT_ALIGNED = -1.0


@dataclass(frozen=True)
class Alignment:
    """How pairs of thumbnails fit on each other; arrays with one row for each pair.

    Attributes:
        maps: float32 [pairs, 4], (scale, shift) along x and along y: pixel x of the second thumbnail, from its center,
            lies at scale * x + shift of the first, in sides of a thumbnail.
        correlation: float32 [pairs], of the band-passed thumbnails where they overlap, -1 to 1; NOT_ALIGNED if the
            pair differs so much that it was not refined.
        mismatch: float32 [pairs], root mean square difference of the blurred gray values, in units of what
            recompression and a shift of 0.2 pixels cause; infinite if the pair was not refined.
    """

    maps: np.ndarray
    correlation: np.ndarray
    mismatch: np.ndarray


def align_thumbnails(first: np.ndarray, second: np.ndarray) -> Alignment:
    """Align thumbnails, uint8 [pairs, 96, 96] each, in 1 ms for a pair of different images and 4 ms for others."""
    num_pairs = len(first)
    maps = np.tile(IDENTITY, (num_pairs, 1))
    correlation = np.full(num_pairs, NOT_ALIGNED, dtype=np.float32)
    mismatch = np.full(num_pairs, np.inf, dtype=np.float32)
    kept, originals = np.arange(num_pairs), (first.astype(np.float32), second.astype(np.float32))
    for size, max_mismatch in MAX_MISMATCHES.items():
        images = [_shrink(image[kept], size) for image in originals]
        details = [_equalize_details(image) for image in images]
        if size == SIZES[0]:
            maps, scores = _start_alignment(details[0], details[1])
        else:
            maps[kept] = _refine(details[0], details[1], maps[kept], num_steps=3)
            scores = _correlate(details[0], details[1], maps[kept])
        mismatches = _measure_mismatch(images[0], images[1], maps[kept])
        is_kept = (scores > MIN_CORRELATION) & (mismatches < max_mismatch)
        kept, scores, mismatches = kept[is_kept], scores[is_kept], mismatches[is_kept]
    correlation[kept], mismatch[kept] = scores, mismatches
    return Alignment(maps, correlation, mismatch)


def _shrink(images: np.ndarray, size: int) -> np.ndarray:
    factor = images.shape[1] // size
    return np.asarray(images.reshape(len(images), size, factor, size, factor).mean((2, 4)))


def _blur(images: np.ndarray, sigma: float) -> np.ndarray:
    return np.asarray(gaussian_filter(images, (0, sigma, sigma), mode="reflect", truncate=3.0))


def _equalize_details(images: np.ndarray) -> np.ndarray:
    """Remove brightness and large shapes, and give regions of weak contrast nearly the weight of others: the edge of a
    white background would decide otherwise."""
    size = images.shape[1]
    details = _blur(images, max(0.5, size / 137)) - _blur(images, 3 + (size > 32))
    local_energy = _blur(details**2, 4 + (size > 32) * 2 + (size > 48) * 2)
    mean_contrast = np.sqrt((details**2).mean((1, 2), keepdims=True))
    return np.asarray(details / (np.sqrt(np.maximum(local_energy, 0)) + 0.5 * mean_contrast + 0.25))


def _start_alignment(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the better of two alignments, refined from the peak of the cross-correlation and from no change."""
    searched_maps = _refine(first, second, _search(first, second), num_steps=5)
    plain_maps = _refine(first, second, np.tile(IDENTITY, (len(first), 1)), num_steps=5)
    searched_scores, plain_scores = (_correlate(first, second, maps) for maps in (searched_maps, plain_maps))
    is_plain = plain_scores >= searched_scores - IDENTITY_BONUS
    return np.where(is_plain[:, None], plain_maps, searched_maps), np.maximum(searched_scores, plain_scores)


def _search(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the maps, float32 [pairs, 4], of equal scale along both axes with the highest cross-correlation."""
    size = first.shape[1]
    window = _build_window(size)
    spectrum = np.conj(np.fft.rfft2(_normalize(second) * window))
    best_scores, maps = np.full(len(first), -np.inf, dtype=np.float32), np.tile(IDENTITY, (len(first), 1))
    for scale in SCALES:
        weights = _build_weights(_get_centered(size)[None] * scale + (size - 1) / 2, size)[0]
        scaled = _normalize(weights @ first @ weights.T) * window
        correlation = np.fft.irfft2(np.fft.rfft2(scaled) * spectrum, s=(size, size)).reshape(len(first), size**2)
        peaks = correlation.argmax(1)
        scores = correlation[np.arange(len(first)), peaks]
        shifts = (np.stack(np.divmod(peaks, size), 1) + size // 2) % size - size // 2
        is_better = scores > best_scores
        best_scores[is_better] = scores[is_better]
        shifts_y, shifts_x = shifts.T * scale / size
        scales = np.full(len(first), scale)
        maps[is_better] = np.stack([scales, shifts_x, scales, shifts_y], 1)[is_better]
    return maps


def _normalize(images: np.ndarray) -> np.ndarray:
    centered = images - images.mean((1, 2), keepdims=True)
    return np.asarray(centered / np.maximum(np.sqrt((centered**2).sum((1, 2), keepdims=True)), 1e-6))


def _build_window(size: int) -> np.ndarray:
    """Return weights, float32 [size, size], that fall to 0 over the outer 15 % of each side."""
    distance = np.abs(np.linspace(-1, 1, size))
    taper = np.where(distance > 0.7, 0.5 * (1 + np.cos(np.pi * (distance - 0.7) / 0.3)), 1)
    return np.outer(taper, taper).astype(np.float32)


def _get_centered(size: int) -> np.ndarray:
    return np.arange(size, dtype=np.float32) - (size - 1) / 2


def _build_weights(positions: np.ndarray, size: int) -> np.ndarray:
    """Return weights of linear interpolation, float32 [pairs, n, size], at `positions`, [pairs, n]; 0 outside."""
    return np.asarray(np.maximum(0, 1 - np.abs(positions[:, :, None] - np.arange(size, dtype=np.float32))))


def _map_positions(maps: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return where the columns and the rows of the second thumbnail lie in the first, float32 [pairs, size]."""
    centered, center = _get_centered(size), (size - 1) / 2
    columns = centered * maps[:, 0:1] + maps[:, 1:2] * size + center
    rows = centered * maps[:, 2:3] + maps[:, 3:4] * size + center
    return columns, rows


def _find_overlap(maps: np.ndarray, size: int, border: int = 0) -> np.ndarray:
    """Return 1 where the thumbnails overlap and else 0, float32 [pairs, size, size], without `border` pixels."""
    is_inside = np.zeros((2, len(maps), size), dtype=bool)
    for axis, positions in enumerate(_map_positions(maps, size)):
        is_inside[axis, :, border : size - border] = True
        is_inside[axis] &= (positions >= border) & (positions <= size - 1 - border)
    return np.asarray((is_inside[1][:, :, None] & is_inside[0][:, None, :]).astype(np.float32))


def _refine(first: np.ndarray, second: np.ndarray, maps: np.ndarray, num_steps: int) -> np.ndarray:
    """Return `maps`, float32 [pairs, 4], after Gauss-Newton steps toward the least squared difference."""
    size = first.shape[1]
    gradient_y, gradient_x = np.gradient(first, axis=(1, 2))
    position = _get_centered(size) / size
    limits = np.array([MAX_SCALE_STEP, MAX_SHIFT_STEP] * 2, dtype=np.float32)
    lowest = np.array([MIN_SCALE, -MAX_SHIFT] * 2, dtype=np.float32)
    highest = np.array([MAX_SCALE, MAX_SHIFT] * 2, dtype=np.float32)
    for _ in range(num_steps):
        columns, rows = _map_positions(maps, size)
        column_weights, row_weights = _build_weights(columns, size).transpose(0, 2, 1), _build_weights(rows, size)
        overlap = _find_overlap(maps, size)
        warped, slope_x, slope_y = (row_weights @ (image @ column_weights) for image in (first, gradient_x, gradient_y))
        warped, target = _center(warped, overlap), _center(second, overlap)
        gain = (warped * target).sum((1, 2)) / ((warped**2).sum((1, 2)) + 1e-6)
        gain = np.clip(gain, 0.3, 3)[:, None, None]
        slopes = (slope_x * position, slope_x, slope_y * position[:, None], slope_y)
        jacobian = (np.stack(slopes, 1) * (gain * overlap * size)[:, None]).reshape(len(maps), 4, size**2)
        hessian = jacobian @ jacobian.transpose(0, 2, 1)
        damping = np.trace(hessian, axis1=1, axis2=2)[:, None, None] * DAMPING + 1e-6
        difference = (target - gain * warped).reshape(len(maps), size**2, 1)
        steps = np.linalg.solve(hessian + damping * np.eye(4, dtype=np.float32), jacobian @ difference)[:, :, 0]
        maps = np.clip(maps + np.clip(steps, -limits, limits), lowest, highest)
    return maps


def _center(images: np.ndarray, overlap: np.ndarray) -> np.ndarray:
    """Subtract the mean over the overlap, and set the rest to 0."""
    count = overlap.sum((1, 2), keepdims=True) + 1e-6
    return np.asarray((images - (images * overlap).sum((1, 2), keepdims=True) / count) * overlap)


def _warp(images: np.ndarray, maps: np.ndarray) -> np.ndarray:
    columns, rows = _map_positions(maps, images.shape[1])
    size = images.shape[1]
    return np.asarray(_build_weights(rows, size) @ (images @ _build_weights(columns, size).transpose(0, 2, 1)))


def _correlate(first: np.ndarray, second: np.ndarray, maps: np.ndarray) -> np.ndarray:
    overlap = _find_overlap(maps, first.shape[1])
    warped, target = _center(_warp(first, maps), overlap), _center(second, overlap)
    norms = np.sqrt((warped**2).sum((1, 2)) * (target**2).sum((1, 2)) + 1e-6)
    return np.asarray((warped * target).sum((1, 2)) / norms)


def _measure_mismatch(first: np.ndarray, second: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Return the difference of the blurred images where they overlap, as `Alignment.mismatch`."""
    blur = BLUR * first.shape[1]
    overlap = _find_overlap(maps, first.shape[1], border=round(2.5 * blur))
    warped, target = _warp(_blur(first, blur), maps), _blur(second, blur)
    count = overlap.sum((1, 2)) + 1e-6
    squared_difference = (((warped - target) * overlap) ** 2).sum((1, 2)) / count
    slopes = np.gradient(target, axis=(1, 2))
    squared_slope = ((slopes[0] ** 2 + slopes[1] ** 2) * overlap).sum((1, 2)) / count
    return np.asarray(np.sqrt(squared_difference / (1 + MAX_ERROR**2 * squared_slope)))
