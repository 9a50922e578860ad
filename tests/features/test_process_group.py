"""Several processes share one pass over the images. Here each process is a thread with a network of its own."""

from __future__ import annotations

import copy
import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import thaw.features.cache
from tests.features.test_feature_cache import build_cache, build_network, build_samples, get_or_compute, list_folders
from thaw.config.errors import UserError
from thaw.data.augmentation import Augmentation
from thaw.features.cache import CacheResult, FeatureCache
from thaw.features.extract import Shard
from thaw.features.process_group import ProcessGroup
from thaw.features.views import ViewPass, build_views
from thaw.system.cache_folder import FolderTransaction

NUM_SHARING_CALLS = 2  # of `ranks_sharing`
NUM_CALLS_IF_CACHED = 3  # whether the folders exist, read, whether all could read
NUM_CALLS_IF_COMPUTED = NUM_CALLS_IF_CACHED + NUM_SHARING_CALLS + 3  # plan, compute, commit


class RecordingGroup:
    """A process group of `world_size` threads that records the collective calls of each."""

    def __init__(self, world_size: int) -> None:
        self.barrier, self.values = threading.Barrier(world_size, timeout=20), [None] * world_size
        self.num_calls = [0] * world_size

    def build_process_group(self, rank: int) -> ProcessGroup:
        return ProcessGroup(rank, len(self.values), lambda value: self.all_gather(rank, value))

    def all_gather(self, rank: int, value: Any) -> list[Any]:
        self.num_calls[rank] += 1
        self.values[rank] = value
        self.barrier.wait()
        values = list(self.values)
        self.barrier.wait()
        return values


def run_in_threads(
    caches: list[FeatureCache], action: Callable[[FeatureCache], Any], group: RecordingGroup | None = None
) -> list[Any]:
    """Run `action` with each cache in a thread; return the results by rank."""
    group = group or RecordingGroup(len(caches))
    rank_caches = [
        dataclasses.replace(cache, process_group=group.build_process_group(rank)) for rank, cache in enumerate(caches)
    ]
    with ThreadPoolExecutor(len(rank_caches)) as pool:
        futures = [pool.submit(action, cache) for cache in rank_caches]
        return [future.result() for future in futures]


NETWORK = build_network()  # built once: threads share the generator of its weights


def compute(cache: FeatureCache) -> CacheResult:
    return get_or_compute(cache, copy.deepcopy(NETWORK), [2, 1])


def catch_error(cache: FeatureCache) -> str:
    """Return the message of the error that computing raises."""
    try:
        compute(cache)
    except Exception as error:
        return str(error)
    pytest.fail("no error was raised")


def list_partial_folders(root: Path) -> list[Path]:
    return [path for path in (root / "features").iterdir() if "partial" in path.name]


@pytest.fixture(autouse=True)
def use_batches_of_one_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make five batches of five images, and measure no memory format."""
    monkeypatch.setitem(thaw.features.extract.BATCH_SIZES, "cpu", 1)
    monkeypatch.setattr(thaw.features.cache, "find_fastest_memory_format", lambda *_: "contiguous")


@pytest.mark.parametrize("world_size", [2, 3, 7])
@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(flip=0.5)])
def test_many_processes_compute_the_same_bits_as_a_single_one(
    tmp_path: Path, world_size: int, augmentation: Augmentation
) -> None:
    views = build_views(build_samples(), augmentation, 3, None)
    expected = compute(build_cache(tmp_path / "single", views=views)).features
    caches = [build_cache(tmp_path / "many", views=views) for _ in range(world_size)]
    for result in run_in_threads(caches, compute):
        assert torch.equal(result.features.values, expected.values)
        assert result.seconds > 0
    folders = list_folders(tmp_path / "many")
    assert len(folders) == 2, "the pass fills both depths"
    assert [sorted(file.name for file in folder.iterdir()) for folder in folders] == [
        ["checksums.txt", "meta.json", "values.bin"]
    ] * 2
    assert not list((tmp_path / "many").glob(".seen-*"))
    assert [result.seconds for result in run_in_threads(caches, compute)] == [0] * world_size


def test_each_process_computes_its_shard_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards: list[Shard] = []
    extract_features = thaw.features.cache.extract_features

    def record_shard(*arguments: Any) -> None:
        shards.extend(argument for argument in arguments if isinstance(argument, Shard))
        extract_features(*arguments)

    monkeypatch.setattr(thaw.features.cache, "extract_features", record_shard)
    run_in_threads([build_cache(tmp_path) for _ in range(3)], compute)
    assert sorted((shard.index, shard.num_shards) for shard in shards) == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize(("num_images", "num_shards"), [(153, 2), (153, 3), (5, 4), (1, 2), (32, 2)])
def test_shards_are_whole_batches_and_cover_the_pass(num_images: int, num_shards: int) -> None:
    passes = [
        ViewPass(-1, Augmentation(), np.arange(num_images)),
        ViewPass(0, Augmentation(), np.arange(num_images, num_images + 7)),
    ]
    shard_passes = [[*Shard(index, num_shards).select_passes(passes, 16)] for index in range(num_shards)]
    positions = [np.concatenate([view_pass.positions for view_pass in shard]) for shard in shard_passes]
    assert np.concatenate(positions).tolist() == list(range(num_images + 7))
    assert len(positions[0]) > 0
    for shard in shard_passes:
        for view_pass, whole_pass in zip(shard, passes, strict=True):
            offset = view_pass.positions[0] - whole_pass.positions[0] if len(view_pass.positions) else 0
            assert offset % 16 == 0


def test_processes_without_a_common_folder_compute_for_themselves(tmp_path: Path) -> None:
    """Two nodes with a disk each, and two processes on the first."""
    results = run_in_threads([build_cache(tmp_path / node) for node in ("a", "a", "b")], compute)
    assert all(torch.equal(result.features.values, results[0].features.values) for result in results)
    assert len(list_folders(tmp_path / "a")) == len(list_folders(tmp_path / "b")) == 2


def test_a_node_computes_features_that_only_another_node_has(tmp_path: Path) -> None:
    compute(build_cache(tmp_path / "a"))
    first, second = run_in_threads([build_cache(tmp_path / "a"), build_cache(tmp_path / "b")], compute)
    assert first.seconds == 0
    assert second.seconds > 0
    assert torch.equal(first.features.values, second.features.values)


def fill_disk_of_rank_1(monkeypatch: pytest.MonkeyPatch) -> None:
    get_path = Shard.get_path
    monkeypatch.setattr(
        Shard,
        "get_path",
        lambda shard, folder: Path("/dev/full") if shard.index == 1 else get_path(shard, folder),
    )


def test_all_processes_raise_if_the_disk_of_one_is_full_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_disk_of_rank_1(monkeypatch)
    with pytest.raises(UserError):
        run_in_threads([build_cache(tmp_path) for _ in range(2)], compute)
    messages = run_in_threads([build_cache(tmp_path) for _ in range(3)], catch_error)
    assert all("No space left on device" in message for message in messages)
    assert list_folders(tmp_path) == []
    assert list_partial_folders(tmp_path) == []


def fail_in_the_leader(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ValueError("no memory format")

    monkeypatch.setattr(thaw.features.cache, "find_fastest_memory_format", fail)


def fail_to_concatenate(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(thaw.features.cache, "concatenate_shards", fail)


def fail_to_decode_in_rank_1(monkeypatch: pytest.MonkeyPatch) -> None:
    extract_features = thaw.features.cache.extract_features

    def fail(*arguments: Any) -> None:
        if any(isinstance(argument, Shard) and argument.index == 1 for argument in arguments):
            raise ValueError("a broken image")
        extract_features(*arguments)

    monkeypatch.setattr(thaw.features.cache, "extract_features", fail)


def compute_in_another_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let another run fill the folders while the leader waits for their locks."""
    begin, other_run = FolderTransaction.begin, threading.local()

    def begin_too_late(transaction: FolderTransaction) -> dict[Path, Path]:
        if not hasattr(other_run, "has_started"):
            other_run.has_started = True
            compute(build_cache(transaction._targets[0].parents[1]))
        return begin(transaction)

    monkeypatch.setattr(FolderTransaction, "begin", begin_too_late)


def leave_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    pass


FAILURES: list[tuple[Callable[[pytest.MonkeyPatch], None], str, int]] = [
    (fill_disk_of_rank_1, "No space left on device", 1 + NUM_SHARING_CALLS + 2),
    (fail_in_the_leader, "no memory format", 1 + NUM_SHARING_CALLS + 1),
    (fail_to_decode_in_rank_1, "a broken image", 1 + NUM_SHARING_CALLS + 2),
    (fail_to_concatenate, "No space left on device", 1 + NUM_SHARING_CALLS + 3),
]


@pytest.mark.parametrize(
    ("break_step", "message", "num_calls"), FAILURES, ids=lambda value: getattr(value, "__name__", "")
)
@pytest.mark.parametrize("nodes", ["aaa", "aab"])
def test_all_processes_make_the_same_calls_and_raise_if_a_step_fails_in_one(
    break_step: Callable[[pytest.MonkeyPatch], None],
    message: str,
    num_calls: int,
    nodes: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    break_step(monkeypatch)
    group = RecordingGroup(len(nodes))
    messages = run_in_threads([build_cache(tmp_path / node) for node in nodes], catch_error, group)
    assert all(message in rank_message for rank_message in messages)
    assert group.num_calls == [num_calls] * len(nodes)
    assert [list_folders(tmp_path / node) + list_partial_folders(tmp_path / node) for node in set(nodes)] == [
        [] for _ in set(nodes)
    ]


@pytest.mark.parametrize("nodes", ["a", "aaa", "aab"])
@pytest.mark.parametrize("change", [leave_unchanged, compute_in_another_run])
def test_all_processes_make_the_same_calls_whether_features_are_computed_or_cached(
    nodes: str, change: Callable[[pytest.MonkeyPatch], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    caches = [build_cache(tmp_path / node) for node in nodes]
    num_sharing_calls = NUM_SHARING_CALLS if len(nodes) > 1 else 0
    computing, reading = RecordingGroup(len(nodes)), RecordingGroup(len(nodes))
    change(monkeypatch)
    results = run_in_threads(caches, compute, computing)
    assert [result.seconds > 0 for result in results] == [change is leave_unchanged] * len(nodes)
    assert computing.num_calls == [NUM_CALLS_IF_CACHED + num_sharing_calls + 3] * len(nodes)
    run_in_threads(caches, compute, reading)
    assert reading.num_calls == [NUM_CALLS_IF_CACHED] * len(nodes)


def test_all_processes_try_again_if_another_run_evicts_the_features_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, evicted_ranks = FeatureCache._read, set[int]()

    def read_too_late(cache: FeatureCache, *arguments: Any) -> Any:
        rank = cache.process_group.rank
        if rank == 1 and rank not in evicted_ranks:
            evicted_ranks.add(rank)
            return None
        return read(cache, *arguments)

    monkeypatch.setattr(FeatureCache, "_read", read_too_late)
    group = RecordingGroup(2)
    run_in_threads([build_cache(tmp_path) for _ in range(2)], compute, group)
    assert group.num_calls == [NUM_CALLS_IF_COMPUTED + NUM_CALLS_IF_CACHED] * 2


def test_all_processes_give_up_if_the_features_of_one_are_evicted_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = FeatureCache._read
    monkeypatch.setattr(
        FeatureCache, "_read", lambda cache, *arguments: read(cache, *arguments) if cache.process_group.rank else None
    )
    group = RecordingGroup(2)
    messages = run_in_threads([build_cache(tmp_path) for _ in range(2)], catch_error, group)
    assert len(set(messages)) == 1
    assert group.num_calls[0] == group.num_calls[1]


def test_a_process_that_cannot_write_shares_the_folder_of_one_that_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch = Path.touch
    ranks_by_thread: dict[int, int] = {}

    def fail_in_rank_0(path: Path) -> None:
        if ranks_by_thread[threading.get_ident()] == 0:
            raise OSError(30, "Read-only file system")
        touch(path)

    def find_ranks(cache: FeatureCache) -> list[int]:
        ranks_by_thread[threading.get_ident()] = cache.process_group.rank
        return cache.process_group.ranks_sharing(cache.root)

    monkeypatch.setattr(Path, "touch", fail_in_rank_0)
    assert run_in_threads([build_cache(tmp_path) for _ in range(3)], find_ranks) == [[0, 1, 2]] * 3
