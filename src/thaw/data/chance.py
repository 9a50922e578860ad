"""Chance as a function: the same numbers for the same (seed, epoch, image), whoever asks, in any order and batch."""

from __future__ import annotations

import numpy as np

GOLDEN_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def counter_uniform(seed: int, epoch: int, positions: np.ndarray, count: int) -> np.ndarray:
    """float64 [n, count] in 0 <= x < 1 for int64 `positions` [n].

    SplitMix64 (Steele, Lea and Flood 2014) as a hash of the four indices: a generator object an image would cost 15
    microseconds each, this costs 0.1.
    """
    with np.errstate(over="ignore"):  # arithmetic modulo 2^64 is meant
        epoch_state = _mix64(_mix64(np.array([seed], np.uint64) + GOLDEN_GAMMA) + np.uint64(epoch) + GOLDEN_GAMMA)
        image_states = _mix64(epoch_state + (positions.astype(np.uint64) + np.uint64(1)) * GOLDEN_GAMMA)
        values = _mix64(image_states[:, None] + np.arange(1, count + 1, dtype=np.uint64) * GOLDEN_GAMMA)
    return (values >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix64(state: np.ndarray) -> np.ndarray:
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(state ^ (state >> np.uint64(31)))
