"""Inspect a data set: decode its images, leave out the broken ones, and find its problems."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from thaw.config.dataset_rules import get_archives
from thaw.config.errors import Problem, UserError, format_names
from thaw.config.schema import CaptchaDatasetConfig, CsvDatasetConfig, FolderDatasetConfig
from thaw.data.download import has_checksum
from thaw.data.image import DecodedImage
from thaw.data.image_store import (
    UNMEASURED,
    ImageStore,
    LazyImageStore,
    estimate_store_bytes,
    iter_decoded,
    measure_image,
    open_image_store,
    open_lazy_image_store,
)
from thaw.data.near_copies import CopyPair, build_thumbnail, collect_thumbnails, find_copies
from thaw.data.preprocessing import Preprocessing
from thaw.data.problems import (
    DatasetProblem,
    build_broken_problems,
    find_problems,
)
from thaw.data.readers import escape_path
from thaw.data.resizing import crop_elongated
from thaw.data.samples import Samples
from thaw.system.process import available_cpus
from thaw.system.reporter import SILENT, Reporter


@dataclass(frozen=True)
class DatasetInspection:
    """A data set without the images that cannot be decoded.

    Attributes:
        samples: the usable samples.
        store: their images, in the same order.
        skipped: printable path of each image that cannot be decoded -> reason.
        problems: problems of the usable samples.
        copies: pairs of usable samples that are copies; empty unless they were searched for.
    """

    samples: Samples
    store: ImageStore | LazyImageStore
    skipped: dict[str, str]
    problems: list[DatasetProblem]
    copies: tuple[CopyPair, ...] = ()


def inspect_dataset(
    samples: Samples,
    preprocessing: Preprocessing,
    cache_dir: Path,
    skip_broken: bool,
    near_duplicates: bool,
    max_store_bytes: float = float("inf"),
    reporter: Reporter = SILENT,
) -> DatasetInspection:
    """Open the image store of `samples`, drop broken images and find problems.

    Images are decoded once, when the store is built. If the store would take more than `max_store_bytes`, they are
    decoded once here and again at every access. `near_duplicates` also searches for copies in files that differ.

    Raises:
        UserError: if images cannot be decoded; with `skip_broken` only if too few are left.
    """
    is_stored = estimate_store_bytes(samples, preprocessing) <= max_store_bytes
    full_store = (
        open_image_store(samples, preprocessing, cache_dir, skip_broken, reporter)
        if is_stored
        else open_lazy_image_store(samples, preprocessing, skip_broken, reporter)
    )
    usable_samples, store, skipped = drop_broken(samples, full_store)
    copies = find_stored_copies(usable_samples, store) if near_duplicates else None
    problems = find_problems(usable_samples, store.sizes, store.nearly_black, copies)
    return DatasetInspection(usable_samples, store, skipped, problems, tuple(copies or ()))


def find_stored_copies(
    samples: Samples, store: ImageStore | LazyImageStore, features: np.ndarray | None = None
) -> list[CopyPair]:
    """Find the copies among `samples`, whose images are in `store`, as `find_copies` does. Images of one size whose
    pixels are equal in the store, where they are resized, count as equal."""

    def load_thumbnail(position: int) -> tuple[np.ndarray, bytes]:
        return build_thumbnail(Image.fromarray(store[position]))

    with ThreadPoolExecutor(available_cpus()) as pool:
        thumbnails = collect_thumbnails(list(pool.map(load_thumbnail, range(len(samples.samples)))), store.sizes)
    return find_copies(samples, thumbnails, features)


def drop_broken(
    samples: Samples, store: ImageStore | LazyImageStore
) -> tuple[Samples, ImageStore | LazyImageStore, dict[str, str]]:
    """Return samples and store without broken images, and printable path -> reason of those.

    Raises:
        UserError: if a class has no train images left, or if no test images are left.
    """
    if not store.broken:
        return samples, store, {}
    usable_positions = np.setdiff1d(np.arange(len(samples.samples)), list(store.broken)).tolist()
    skipped = {escape_path(samples.samples.paths[position]): reason for position, reason in store.broken.items()}
    usable_samples = samples.subset(usable_positions)
    _check_remaining(usable_samples)
    return usable_samples, store.subset(usable_positions), skipped


def _check_remaining(samples: Samples) -> None:
    train_labels = set(samples.get_labels()[samples.get_positions("train")].tolist())
    missing_images = [
        f"train images of {name}" for label, name in enumerate(samples.classes) if label not in train_labels
    ]
    missing_images += [] if samples.count_per_split()["test"] else ["test images"]
    if missing_images:
        fix = "repair the images; data.broken=error lists them"
        problem = Problem("data.broken=skip", f"no {format_names(missing_images)} left", fix=fix)
        raise UserError("too few images are left without the broken ones.", [problem])


def verify_dataset(samples: Samples, near_duplicates: bool, reporter: Reporter = SILENT) -> list[DatasetProblem]:
    """Decode every file, even if an image store of it exists, and return all problems."""

    def measure(decoded: DecodedImage) -> tuple[tuple[int, int, bool], tuple[np.ndarray, bytes] | None]:
        """Return what `measure_image` does, and the thumbnail by which copies are found."""
        thumbnail = build_thumbnail(crop_elongated(decoded).turn_upright()) if near_duplicates else None
        return measure_image(decoded), thumbnail

    results = list(iter_decoded(samples, measure, reporter=reporter))
    reasons = {
        escape_path(path): result
        for path, result in zip(samples.samples.paths, results, strict=True)
        if isinstance(result, str)
    }
    usable_results = {position: result for position, result in enumerate(results) if not isinstance(result, str)}
    table = np.array([row for row, _ in usable_results.values()], dtype=np.int64).reshape(-1, len(UNMEASURED))
    usable_samples = samples.subset(np.array(list(usable_results), dtype=np.int64)) if reasons else samples
    thumbnails = [thumbnail for _, thumbnail in usable_results.values() if thumbnail is not None]
    copies = find_copies(usable_samples, collect_thumbnails(thumbnails, table[:, :2])) if near_duplicates else None
    return [*build_broken_problems(reasons), *find_problems(usable_samples, table[:, :2], table[:, 2] > 0, copies)]


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
