"""A data set looked through: what can be used of it, decoded, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from thaw.config.consistency import get_archives
from thaw.config.errors import Problem, UserError, format_names
from thaw.config.schema import CaptchaDatasetConfig, CsvDatasetConfig, FolderDatasetConfig
from thaw.data.download import has_checksum
from thaw.data.image_store import (
    ImageStore,
    LazyImageStore,
    crop_elongated,
    estimate_store_bytes,
    iter_decoded,
    open_image_store,
    open_lazy_image_store,
)
from thaw.data.near_duplicates import compute_difference_hash, compute_difference_hashes
from thaw.data.preprocessing import Preprocessing
from thaw.data.problems import DatasetProblem, build_broken_problems, escape_path, find_problems
from thaw.data.samples import Samples


@dataclass(frozen=True)
class DatasetInspection:
    """`samples` and `store` without the images that cannot be decoded; those are `skipped`: path -> why."""

    samples: Samples
    store: ImageStore | LazyImageStore
    skipped: dict[str, str]
    problems: list[DatasetProblem]


def inspect_dataset(
    samples: Samples,
    preprocessing: Preprocessing,
    cache_dir: Path,
    skip_broken: bool,
    near_duplicates: bool,
    max_store_bytes: float = float("inf"),
) -> DatasetInspection:
    """Every image is decoded once, unless a store of it is there; all else is found in the store. Where the store would
    take more than `most_bytes`, images are decoded anew at every access.

    Raises:
        UserFault: naming the images that cannot be decoded; with `skip_broken` only where too little is left.
    """
    is_stored = estimate_store_bytes(samples, preprocessing) <= max_store_bytes
    full_store = (
        open_image_store(samples, preprocessing, cache_dir, skip_broken)
        if is_stored
        else open_lazy_image_store(samples, preprocessing, skip_broken)
    )
    usable_samples, store, skipped = drop_broken(samples, full_store)
    hashes = (
        compute_difference_hashes(store[position] for position in range(len(usable_samples.samples)))
        if near_duplicates
        else None
    )
    return DatasetInspection(usable_samples, store, skipped, find_problems(usable_samples, store.sizes, hashes))


def drop_broken(
    samples: Samples, store: ImageStore | LazyImageStore
) -> tuple[Samples, ImageStore | LazyImageStore, dict[str, str]]:
    """Both without the broken images, and those: path -> why.

    Raises:
        UserFault: where a class has no train image any more, or no test image is left.
    """
    if not store.broken:
        return samples, store, {}
    kept_positions = [position for position in range(len(samples.samples)) if position not in store.broken]
    skipped = {escape_path(samples.samples[position].path): reason for position, reason in store.broken.items()}
    remaining_samples = samples.subset(kept_positions)
    _check_remaining(remaining_samples)
    return remaining_samples, store.subset(kept_positions), skipped


def _check_remaining(samples: Samples) -> None:
    train_labels = {sample.label for sample in samples.samples if sample.split == "train"}
    missing_images = [
        f"train images of {name}" for label, name in enumerate(samples.classes) if label not in train_labels
    ]
    missing_images += [] if samples.count_per_split()["test"] else ["test images"]
    if missing_images:
        fix = "mend the images; data.broken=error names them"
        problem = Problem("data.broken=skip", f"no {format_names(missing_images)} left", fix=fix)
        raise UserError("too little is left without the broken images.", [problem])


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


def find_corrupt_archives(
    dataset: CaptchaDatasetConfig | FolderDatasetConfig | CsvDatasetConfig, cache_dir: Path
) -> list[DatasetProblem]:
    """Return a problem if an archive on this machine has another checksum than the official one: downloaded archives,
    and one that `dataset.root` names."""
    if isinstance(dataset, CaptchaDatasetConfig):
        return []
    archives = get_archives(dataset).values()
    checksums = {Path(archive.url).name: archive.checksum for archive in archives if archive.checksum}
    paths = [cache_dir / "downloads" / name for name in checksums]
    paths += [Path(dataset.root).expanduser()] if dataset.root else []
    local_paths = [path for path in paths if path.is_file() and path.name in checksums]
    corrupt_paths = [str(path) for path in local_paths if not has_checksum(path, checksums[path.name])]
    title = "archives with another checksum than the official one"
    return [DatasetProblem("archive", title, tuple(corrupt_paths))] if corrupt_paths else []
