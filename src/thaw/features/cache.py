"""Features of one data set's images: found, or made once by whoever asks first.

The processes of one run share the pass out, those of them that see the same cache folder: the first of these holds the
folders' locks, the others write their shares beside its own. Each step is gone by all processes of the run together,
so none waits for one that has gone another way.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import __version__ as pillow_version
from torch import nn

from thaw.config.errors import Problem, UserError
from thaw.data.batches import ImageDataset
from thaw.data.preprocessing import Preprocessing
from thaw.features.cached_features import CachedFeatures, read_features
from thaw.features.extract import ExecutionConfig, Shard, concatenate_shards, extract_features
from thaw.features.forward import MEMORY_FORMATS, find_fastest_memory_format
from thaw.features.process_group import SINGLE_PROCESS, ProcessGroup
from thaw.features.views import Views
from thaw.models.network import Network
from thaw.system.cache_entries import CacheEntry, evict_least_recently_used
from thaw.system.cache_folder import build_folders_once, cache_write_error, compute_cache_key

MAX_ATTEMPTS = 3  # another process may make room by taking away what was just found


@dataclass(frozen=True)
class CacheResult:
    """`seconds` were spent on computing `features`, 0 where they were there; `removed` were other caches, to make
    room."""

    features: CachedFeatures
    seconds: float
    evicted: tuple[CacheEntry, ...]

    def describe(self) -> Iterator[str]:
        num_images, origin = len(self.features.values), "found in the cache"
        if self.evicted:
            size_mib = sum(entry.size for entry in self.evicted) / 2**20
            caches_text = "a feature cache" if len(self.evicted) == 1 else f"{len(self.evicted)} feature caches"
            yield f"{caches_text}, used longest ago, made room: {size_mib:,.0f} MiB (feature_cache.gib)"
        if self.seconds:
            origin = f"computed in {self.seconds:.1f} s"
        yield f"features of {num_images:,} images {origin}, held {self.features.location}"


@dataclass(frozen=True)
class ComputeRequest:
    """What the first process has the others compute: the `folders`, by depth, that are not there, in a `layout`."""

    folders: Mapping[int, Path]
    memory_format: str


@dataclass(frozen=True)
class FeatureCache:
    """Kept in the cache folder `root`, which is to hold no more than `bound` bytes of features. `bytes_an_image` is by
    depth; `architecture` as `feature_key` takes it; `about` is what the caches say of themselves. `crew` are the
    processes that ask together."""

    root: Path
    max_bytes: float
    images: ImageDataset
    views: Views
    preprocessing: Preprocessing
    architecture: str
    execution: ExecutionConfig
    bytes_per_image: Mapping[int, int]
    metadata: Mapping[str, str]
    process_group: ProcessGroup = SINGLE_PROCESS

    @property
    def folder(self) -> Path:
        return self.root / "features"

    def compute_keys(self, network: Network, depths: Sequence[int]) -> dict[int, str]:
        """In the order of `depths`. Every weight is looked at once."""
        identity, precision = self.views.identity, self.execution.precision
        return compute_feature_keys(network, depths, self.architecture, self.preprocessing, precision, identity)

    def has_key(self, key: str) -> bool:
        """For every process of the crew."""
        return all(self.process_group.all_gather((self.folder / key).is_dir()))

    def get_or_compute(self, network: Network, keys: Mapping[int, str]) -> CacheResult:
        """What the stages up to the first depth of `keys` give; the same pass computes what the other depths give, as
        far as there is room.

        Raises:
            UserFault: where the disk is full, or the bound too narrow.
        """
        first_depth, *_ = keys
        depth_by_folder = {self.folder / keys[depth]: depth for depth in self._select_fitting_depths(list(keys))}
        seconds, evicted = 0.0, list[CacheEntry]()
        for _ in range(MAX_ATTEMPTS):
            if not all(self.process_group.all_gather(all(target_folder.is_dir() for target_folder in depth_by_folder))):
                seconds += self._compute_missing(network, depth_by_folder, evicted)
            features = self._read(next(iter(depth_by_folder)), first_depth)
            if all(self.process_group.all_gather(features is not None)):
                break
        if features is None:
            raise FileNotFoundError(next(iter(depth_by_folder)))
        return CacheResult(features, seconds, tuple(evicted))

    def _read(self, target_folder: Path, depth: int) -> CachedFeatures | None:
        try:
            return read_features(target_folder, depth, self.views, self.images.labels, self.execution.device)
        except FileNotFoundError:
            return None

    def _compute_missing(
        self, network: Network, depth_by_folder: Mapping[Path, int], evicted: list[CacheEntry]
    ) -> float:
        """Lets the crew fill the folders `wanted` that are not there. Returns the seconds that it took, 0 where others
        had filled them meanwhile, and adds what had to make room to `removed`."""
        sharing_ranks = self.process_group.ranks_sharing(self.root)
        shard, failure, start_time = (
            Shard(sharing_ranks.index(self.process_group.rank), len(sharing_ranks)),
            None,
            time.perf_counter(),
        )
        if shard.index:
            request = self.process_group.all_gather(None)[sharing_ranks[0]]
            self._compute_shard(network, request, shard)
        else:
            request, failure = self._compute_as_leader(network, depth_by_folder, shard, evicted)
        if failures := [rank_failure for rank_failure in self.process_group.all_gather(failure) if rank_failure]:
            raise failures[0]
        return time.perf_counter() - start_time if request else 0.0

    def _compute_as_leader(
        self, network: Network, depth_by_folder: Mapping[Path, int], shard: Shard, evicted: list[CacheEntry]
    ) -> tuple[ComputeRequest | None, UserError | None]:
        requests, failure = list[ComputeRequest](), None

        def fill(folders: dict[Path, Path]) -> None:
            missing_folders = {depth_by_folder[target_folder]: folder for target_folder, folder in folders.items()}
            evicted.extend(
                evict_least_recently_used(
                    self.root, sum(self._compute_num_bytes(depth) for depth in missing_folders), self.max_bytes
                )
            )
            requests.append(ComputeRequest(missing_folders, self._choose_memory_format(network)))
            self.process_group.all_gather(requests[0])
            if failures := self._compute_shard(network, requests[0], shard):
                raise failures[0]
            for folder in missing_folders.values():
                concatenate_shards(folder, shard.num_shards)

        try:
            build_folders_once(list(depth_by_folder), fill)
        except UserError as error:
            failure = error
        if not requests:  # filled by others meanwhile, or not to be filled: the crew waits for word
            self.process_group.all_gather(None)
            self._compute_shard(network, None, shard)
        return requests[0] if requests else None, failure

    def _compute_shard(self, network: Network, request: ComputeRequest | None, shard: Shard) -> list[UserError]:
        """Computes this process' share of what is ordered. Returns the faults of all processes that do."""
        failure: UserError | None = None
        try:
            if request:
                extraction_inputs = (network, self.preprocessing, self.images, self.views, self.execution)
                extract_features(
                    *extraction_inputs, MEMORY_FORMATS[request.memory_format], request.folders, self.metadata, shard
                )
        except OSError as error:
            failure = cache_write_error(self.folder, error)
        return [rank_failure for rank_failure in self.process_group.all_gather(failure) if rank_failure]

    def _choose_memory_format(self, network: Network) -> str:
        """The first process measures for all: another layout rounds differently."""
        measurements_dir, size = self.root / "measured", self.preprocessing.size
        fastest_format = find_fastest_memory_format(
            network, size, self.architecture, measurements_dir, self.execution.device
        )
        return next(name for name, memory_format in MEMORY_FORMATS.items() if memory_format is fastest_format)

    def _compute_num_bytes(self, depth: int) -> int:
        return self.views.num_rows * self.bytes_per_image[depth]

    def _select_fitting_depths(self, depths: Sequence[int]) -> list[int]:
        first_depth, *other_depths = depths
        if self._compute_num_bytes(first_depth) > self.max_bytes:
            size_gib = self._compute_num_bytes(first_depth) / 2**30
            problem = Problem(
                "feature_cache.gib", f"{self.max_bytes / 2**30:g}", fix=f"feature_cache.gib={2 * size_gib:.2g}"
            )
            raise UserError(f"the features would take {size_gib:.3g} GiB of the disk.", [problem])
        selected_depths, remaining_bytes = [first_depth], self.max_bytes - self._compute_num_bytes(first_depth)
        for depth in other_depths:
            if self._compute_num_bytes(depth) <= remaining_bytes:
                selected_depths.append(depth)
                remaining_bytes -= self._compute_num_bytes(depth)
        return selected_depths


FORMAT_VERSION = 2  # of the files; a cache of another layout is built anew


def compute_feature_keys(
    network: Network,
    depths: Iterable[int],
    architecture: str,
    preprocessing: Preprocessing,
    precision: str,
    image_identity: dict[str, Any],
) -> dict[int, str]:
    """By depth, of the output of the leading so many stages of `network`: for `images` (`Views.identity`), as
    `preprocessing` cuts and scales them, at Lightning's `precision`. `architecture` names library, version and
    backbone, as other wiring may hold the same weights. The weights count by their bits, wherever they come from."""
    requested_depths = list(depths)
    hashes = {
        name: hash_weights(network.get_part(name)) for name in list(network.stages)[: max(requested_depths, default=0)]
    }
    common_fields = {"architecture": architecture, "preprocessing": preprocessing.to_dict(), "precision": precision}
    common_fields |= {
        "pillow": pillow_version,
        "images": image_identity,
    }  # another Pillow may decode and resize otherwise
    return {
        depth: _compute_key(hashes, depth, depth == len(network.stages), common_fields) for depth in requested_depths
    }


def _compute_key(hashes: dict[str, str], depth: int, is_pooled: bool, common_fields: dict[str, Any]) -> str:
    return compute_cache_key(
        layout=FORMAT_VERSION, stages=list(hashes.items())[:depth], pooled=is_pooled, **common_fields
    )


def hash_weights(stage: nn.Module) -> str:
    """SHA-256 of parameters and buffers, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, value in stage.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
