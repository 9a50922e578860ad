"""Features of a data set's images: read from the cache folder, or computed once by the run that needs them first.

The processes of one run compute together. Those that see the same cache folder share one pass over the images; the
first of them, the leader, locks the folders and puts the parts together. All processes go through the same steps and
make the same collective calls in the same order, whether features are found, computed, or cannot be computed:

    plan        the leader locks the folders and decides what is missing
    broadcast   all processes learn the plan
    compute     each writes its part
    commit      the leader concatenates the parts, adds their checksums and moves the folders to their places

Features are verified before they are used; damaged ones are removed and computed again.

An error in one process is gathered at the end of its step and raised in all, see `ProcessGroup`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from thaw.config.errors import Problem, UserError
from thaw.config.schema import Recipe
from thaw.data.batches import ImageDataset
from thaw.features.cache_key import FeatureSpec
from thaw.features.cached_features import CachedFeatures, read_features
from thaw.features.extract import (
    ComputeRequest,
    ExecutionConfig,
    FeatureSource,
    Shard,
    concatenate_shards,
    extract_features,
)
from thaw.features.process_group import SINGLE_PROCESS, ProcessGroup
from thaw.features.speed import MEASUREMENTS_FOLDER, SpeedTest, find_fastest_memory_format
from thaw.models.network import Network
from thaw.system.cache_checksums import discard_if_damaged, write_checksums
from thaw.system.cache_entries import CacheEntry, evict_least_recently_used
from thaw.system.cache_folder import FolderTransaction, raise_write_errors, resolve_cache_dir
from thaw.system.reporter import SILENT, Reporter

FEATURES_FOLDER = "features"  # in the cache folder
MAX_ATTEMPTS = 3  # another run may evict features between the moment they are found and the moment they are read


@dataclass(frozen=True)
class CacheResult:
    """Features, and how they were obtained.

    Attributes:
        features: what was asked for.
        seconds: time spent on computing them; 0 if they were in the cache.
        evicted: other features that were removed to free space.
    """

    features: CachedFeatures
    seconds: float
    evicted: tuple[CacheEntry, ...]

    def describe(self) -> Iterator[str]:
        """Yield the lines that tell a person where the features come from."""
        num_images, origin = len(self.features.values), "found in the cache"
        if self.evicted:
            size_mib = sum(entry.size for entry in self.evicted) / 2**20
            caches_text = "a feature cache" if len(self.evicted) == 1 else f"{len(self.evicted)} feature caches"
            yield f"{caches_text}, used longest ago, made room: {size_mib:,.0f} MiB (feature_cache.gib)"
        if self.seconds:
            origin = f"computed in {self.seconds:.1f} s"
        yield f"features of {num_images:,} images {origin}, held {self.features.location}"


@dataclass(frozen=True)
class FeatureCache:
    """Finds or computes features. Built by `open_feature_cache`.

    Attributes:
        root: the cache folder.
        max_bytes: size that all features in it may have together.
        spec: what the features depend on.
        images: the images of the data set.
        execution: where and how features are computed.
        bytes_per_image: size of the output of the leading `depth` stages for an image, by depth.
        metadata: what the features say about themselves.
        process_group: the processes that compute together.
        reporter: shows the progress.
    """

    root: Path
    max_bytes: float
    spec: FeatureSpec
    images: ImageDataset
    execution: ExecutionConfig
    bytes_per_image: Mapping[int, int]
    metadata: Mapping[str, str]
    process_group: ProcessGroup = SINGLE_PROCESS
    reporter: Reporter = SILENT

    @property
    def folder(self) -> Path:
        """The folder that holds a folder for each key."""
        return self.root / FEATURES_FOLDER

    def compute_keys(self, network: Network, depths: Sequence[int]) -> dict[int, str]:
        """Return the keys of what the leading stages of `network` compute, by depth, in the order of `depths`."""
        return self.spec.compute_keys(network, depths)

    def has_key(self, key: str) -> bool:
        """Return whether every process has features of this `key`. Collective: one call."""
        return all(self.process_group.gather_results(lambda: (self.folder / key).is_dir()))

    def get_or_compute(self, network: Network, keys: Mapping[int, str]) -> CacheResult:
        """Return the output of the leading stages up to the first depth of `keys`, which maps depths to cache keys. The
        pass that computes it also computes the other depths, as far as they fit.

        Collective: the same calls in every process.

        Raises:
            UserError: in every process if the disk of one is full, or `max_bytes` is too small.
            FileNotFoundError: in every process if other runs evict the features again and again.
        """
        first_depth, *_ = keys
        depth_by_folder = {self.folder / keys[depth]: depth for depth in self._select_fitting_depths(list(keys))}
        first_folder, seconds, evicted = self.folder / keys[first_depth], 0.0, list[CacheEntry]()
        for _ in range(MAX_ATTEMPTS):
            is_complete = self.process_group.gather_results(lambda: all(folder.is_dir() for folder in depth_by_folder))
            if not all(is_complete):
                seconds += self._compute_missing(network, depth_by_folder, evicted)
            features = self.process_group.run(lambda: self._read(first_folder, first_depth))
            if all(self.process_group.all_gather(features is not None)):
                assert features is not None
                return CacheResult(features, seconds, tuple(evicted))
        raise FileNotFoundError(first_folder)

    def _read(self, folder: Path, depth: int) -> CachedFeatures | None:
        """Return the features in `folder`, or None if another run has evicted them or they are damaged."""
        try:
            if _discard_if_damaged(folder, self.reporter):
                return None
            return read_features(folder, depth, self.spec.views, self.images.labels, self.execution.device)
        except FileNotFoundError:
            return None

    def _compute_missing(
        self, network: Network, depth_by_folder: Mapping[Path, int], evicted: list[CacheEntry]
    ) -> float:
        """Compute the folders that are missing, together with the other processes; add what was evicted to `evicted`.

        Returns the seconds that it took, 0 if other runs had computed them meanwhile.
        """
        start_time = time.perf_counter()
        sharing_ranks = self.process_group.ranks_sharing(self.root)
        shard = Shard(sharing_ranks.index(self.process_group.rank), len(sharing_ranks))
        with closing(FolderTransaction(list(depth_by_folder))) as transaction:

            def plan() -> ComputeRequest | None:
                return None if shard.index else self._plan(network, depth_by_folder, transaction, evicted)

            request = self.process_group.gather_results(plan)[sharing_ranks[0]]
            self.process_group.run(lambda: self._compute_shard(network, request, shard))
            self.process_group.run(lambda: self._commit(transaction, depth_by_folder, request, shard))
        return time.perf_counter() - start_time if request else 0.0

    def _plan(
        self,
        network: Network,
        depth_by_folder: Mapping[Path, int],
        transaction: FolderTransaction,
        evicted: list[CacheEntry],
    ) -> ComputeRequest | None:
        """Lock the folders and free the space that the missing ones need. Returns None if none is missing any more.

        The leader chooses the memory format for all processes, as another one rounds differently.
        """
        with raise_write_errors(self.folder):
            temporary_folders = transaction.begin()
            if not temporary_folders:
                return None
            folders = {depth_by_folder[target]: folder for target, folder in temporary_folders.items()}
            needed_bytes = sum(self._compute_num_bytes(depth) for depth in folders)
            evicted.extend(evict_least_recently_used(self.root, needed_bytes, self.max_bytes))
            return ComputeRequest(folders, self._choose_memory_format(network), dict(self.metadata))

    def _compute_shard(self, network: Network, request: ComputeRequest | None, shard: Shard) -> None:
        if request is not None:
            source = FeatureSource(network, self.images, self.spec)
            with raise_write_errors(self.folder):
                extract_features(source, self.execution, request, shard, self.reporter)

    def _commit(
        self,
        transaction: FolderTransaction,
        depth_by_folder: Mapping[Path, int],
        request: ComputeRequest | None,
        shard: Shard,
    ) -> None:
        if request is not None and shard.index == 0:
            with raise_write_errors(self.folder):
                for target, depth in depth_by_folder.items():
                    if folder := request.folders.get(depth):
                        concatenate_shards(folder, shard.num_shards)
                        write_checksums(folder, target.name)
                transaction.commit()

    def _choose_memory_format(self, network: Network) -> str:
        folder, size = self.root / MEASUREMENTS_FOLDER, self.spec.preprocessing.size
        speed_test = SpeedTest(network, self.spec.architecture, size, folder, self.reporter)
        return find_fastest_memory_format(speed_test, self.execution.device)

    def _compute_num_bytes(self, depth: int) -> int:
        return self.spec.views.num_rows * self.bytes_per_image[depth]

    def _select_fitting_depths(self, depths: Sequence[int]) -> list[int]:
        """Return the first of `depths`, and of the others those that still fit into `max_bytes`."""
        first_depth, *other_depths = depths
        if self._compute_num_bytes(first_depth) > self.max_bytes:
            raise self._build_size_error(self._compute_num_bytes(first_depth) / 2**30)
        selected_depths, remaining_bytes = [first_depth], self.max_bytes - self._compute_num_bytes(first_depth)
        for depth in other_depths:
            if self._compute_num_bytes(depth) <= remaining_bytes:
                selected_depths.append(depth)
                remaining_bytes -= self._compute_num_bytes(depth)
        return selected_depths

    def _build_size_error(self, size_gib: float) -> UserError:
        fix = f"feature_cache.gib={2 * size_gib:.2g}"
        problem = Problem("feature_cache.gib", f"{self.max_bytes / 2**30:g}", fix=fix)
        return UserError(f"the features would take {size_gib:.3g} GiB of the disk.", [problem])


def open_feature_cache(
    recipe: Recipe,
    spec: FeatureSpec,
    images: ImageDataset,
    execution: ExecutionConfig,
    bytes_per_image: Mapping[int, int],
    process_group: ProcessGroup = SINGLE_PROCESS,
    reporter: Reporter = SILENT,
) -> FeatureCache:
    """Open the feature cache that `recipe` configures, for features of `images` as `spec` says.

    `bytes_per_image` is the size of the output of the leading `depth` stages for an image, by depth.
    """
    metadata = {"dataset": recipe.dataset.name, "backbone": recipe.backbone.name}
    root, max_bytes = resolve_cache_dir(recipe.data.cache_dir), recipe.feature_cache.gib * 2**30
    return FeatureCache(root, max_bytes, spec, images, execution, bytes_per_image, metadata, process_group, reporter)


def _discard_if_damaged(folder: Path, reporter: Reporter) -> bool:
    with raise_write_errors(folder):
        if is_damaged := discard_if_damaged(folder, reporter):
            reporter.warn(f"the cached features in {folder} were damaged and are computed again")
    return is_damaged


def find_cached_features(
    recipe: Recipe,
    spec: FeatureSpec,
    network: Network,
    depths: Sequence[int],
    labels: np.ndarray,
    device: torch.device,
    reporter: Reporter = SILENT,
) -> CachedFeatures | None:
    """Return the features of `network` at the first of `depths` that the cache of `recipe` holds undamaged, or None.

    `labels` are those of all samples, int64 [samples].
    """
    folder = resolve_cache_dir(recipe.data.cache_dir) / FEATURES_FOLDER
    for depth, key in spec.compute_keys(network, depths).items():
        try:
            if not _discard_if_damaged(folder / key, reporter):
                return read_features(folder / key, depth, spec.views, labels, device)
        except FileNotFoundError:
            continue
    return None
