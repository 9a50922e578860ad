"""Pair the runs of two configurations on the test images that both have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thaw.comparison.designs import PairedRun, ScoredRun
from thaw.comparison.records import Predictions, RunResults

MIN_COMMON_FRACTION = 0.5  # of the smaller test set; below it the splits are others, and few images would decide


@dataclass(frozen=True)
class Pairing:
    """The runs that two configurations share, on common test images. `num_left_out` counts the test images that only
    one of them has, or that have another label."""

    pairs: tuple[PairedRun, ...]
    num_left_out: int


def pair_runs(runs: Sequence[RunResults], reference_runs: Sequence[RunResults]) -> Pairing:
    """Pair the runs with the same seed, split_seed and fold on the images that are test images of both with the same
    label. If these are less than half of either, they are no pair: the splits differ."""
    reference_by_replicate = {run.replicate: run for run in reference_runs}
    pairs, num_left_out = [], 0
    for run in runs:
        reference = reference_by_replicate.get(run.replicate)
        pair = _pair_predictions(run, reference) if reference is not None else None
        if pair is not None and reference is not None:
            pairs.append(pair)
            sizes = (len(run.predictions.paths), len(reference.predictions.paths))
            num_left_out = max(num_left_out, max(sizes) - len(pair.images))
    return Pairing(tuple(pairs), num_left_out)


def _pair_predictions(run: RunResults, reference: RunResults) -> PairedRun | None:
    predictions, other = run.predictions, reference.predictions
    if predictions.identity != other.identity:
        is_common, is_common_in_other = _find_common(predictions, other)
        smaller_size = min(len(predictions.paths), len(other.paths))
        if is_common.sum() < MIN_COMMON_FRACTION * smaller_size:
            return None
        predictions, other = predictions.subset(is_common), other.subset(is_common_in_other)
    groups = other.groups if len(set(other.groups)) < len(set(predictions.groups)) else predictions.groups
    num_train = min(run.num_train, reference.num_train)
    return PairedRun(
        run.seed,
        predictions.identity,
        num_train,
        run.replicate.fold is not None,
        predictions.paths,
        groups,
        predictions.correct,
        other.correct,
    )


def _find_common(first: Predictions, second: Predictions) -> tuple[np.ndarray, np.ndarray]:
    """Return which predictions of each, bool [n], are of an image with the same label in the other."""
    first_keys, second_keys = (
        np.array([f"{path}\0{label}" for path, label in zip(item.paths, item.labels, strict=True)])
        for item in (first, second)
    )
    return np.isin(first_keys, second_keys), np.isin(second_keys, first_keys)


def score_runs(runs: Sequence[RunResults]) -> list[ScoredRun]:
    """Return the test images of `runs` and which of them are predicted correctly."""
    return [
        ScoredRun(
            run.seed,
            run.predictions.identity,
            run.num_train,
            run.replicate.fold is not None,
            run.predictions.paths,
            run.predictions.groups,
            run.predictions.correct,
        )
        for run in runs
    ]
