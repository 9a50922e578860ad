"""The files of a data set, decoded one by one and not kept."""

from __future__ import annotations

import numpy as np
from PIL import Image

from thaw.data.lookalike import compute_difference_hash
from thaw.data.problems import DatasetProblem, build_broken_problems, escape_path, find_problems
from thaw.data.samples import Samples
from thaw.data.store import crop_elongated, iter_decoded


def verify_dataset(samples: Samples, near_duplicates: bool) -> list[DatasetProblem]:
    """All problems of `samples`. Every file is read and decoded, also one that a store was built from."""
    results = list(iter_decoded(samples, lambda image: _measure_image(image, near_duplicates)))
    sample_results = zip(samples.samples, results, strict=True)
    reasons = {escape_path(sample.path): result for sample, result in sample_results if isinstance(result, str)}
    usable_results = {position: result for position, result in enumerate(results) if not isinstance(result, str)}
    sizes = np.array([size for size, _ in usable_results.values()], dtype=np.int64).reshape(-1, 2)
    hashes = np.array([image_hash for _, image_hash in usable_results.values()]) if near_duplicates else None
    usable_samples = samples.subset(list(usable_results)) if reasons else samples
    return [*build_broken_problems(reasons), *find_problems(usable_samples, sizes, hashes)]


def _measure_image(image: Image.Image, near_duplicates: bool) -> tuple[tuple[int, int], np.ndarray | None]:
    """Height and width, and the hash that near duplicates share."""
    return (image.height, image.width), compute_difference_hash(crop_elongated(image)) if near_duplicates else None
