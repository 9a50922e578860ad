"""Several processes share out one pass over the images. Here each is a thread: they meet where processes do."""

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
from tests.features.test_feature_cache import everything, feature_cache, find, network, samples
from thaw.config.errors import UserError
from thaw.data.augmentation import Augmentation
from thaw.features.cache import CacheResult, FeatureCache
from thaw.features.extract import Shard
from thaw.features.process_group import ProcessGroup
from thaw.features.views import ViewPass, build_views


class Meeting:
    """All of `size` give a value, and get those of all."""

    def __init__(self, size: int) -> None:
        self.barrier, self.values = threading.Barrier(size, timeout=20), [None] * size

    def crew(self, rank: int) -> ProcessGroup:
        return ProcessGroup(rank, len(self.values), lambda value: self.gather(rank, value))

    def gather(self, rank: int, value: Any) -> list[Any]:
        self.values[rank] = value
        self.barrier.wait()
        found = list(self.values)
        self.barrier.wait()
        return found


def together(caches: list[FeatureCache], use: Callable[[FeatureCache], Any]) -> list[Any]:
    meeting = Meeting(len(caches))
    crews = [dataclasses.replace(cache, crew=meeting.crew(rank)) for rank, cache in enumerate(caches)]
    with ThreadPoolExecutor(len(crews)) as pool:
        return [one.result() for one in [pool.submit(use, crew) for crew in crews]]


NETWORK = network()  # made once: threads share the generator of its weights


def found(cache: FeatureCache) -> CacheResult:
    return find(cache, copy.deepcopy(NETWORK), [2, 1])


@pytest.fixture(autouse=True)
def batches_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five images are then five batches to share out."""
    monkeypatch.setitem(thaw.features.extract.BATCH_SIZES, "cpu", 1)
    monkeypatch.setattr(
        thaw.features.cache, "find_fastest_memory_format", lambda *_: torch.contiguous_format
    )  # not measured


@pytest.mark.parametrize("size", [2, 3, 7])
@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(flip=0.5)])
def test_what_many_compute_is_what_one_computes(tmp_path: Path, size: int, augmentation: Augmentation) -> None:
    views = build_views(samples(), augmentation, 3, None)
    alone = found(feature_cache(tmp_path / "alone", views=views)).features
    many = together([feature_cache(tmp_path / "many", views=views) for _ in range(size)], found)
    for one in many:
        assert torch.equal(one.features.values, alone.values)
        assert one.seconds > 0
    folders = everything(tmp_path / "many")
    assert len(folders) == 2, "the pass fills both depths"
    assert [sorted(file.name for file in folder.iterdir()) for folder in folders] == [["meta.json", "values.bin"]] * 2
    assert not list((tmp_path / "many").glob(".seen-*"))
    again = together([feature_cache(tmp_path / "many", views=views) for _ in range(size)], found)
    assert [one.seconds for one in again] == [0] * size


def test_each_computes_its_share_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shares: list[Shard] = []
    compute = thaw.features.cache.extract_features
    monkeypatch.setattr(
        thaw.features.cache, "extract_features", lambda *what: (shares.append(what[-1]), compute(*what))
    )
    together([feature_cache(tmp_path) for _ in range(3)], found)
    assert sorted((one.index, one.num_shards) for one in shares) == [(0, 3), (1, 3), (2, 3)]


@pytest.mark.parametrize(("images", "count"), [(153, 2), (153, 3), (5, 4), (1, 2), (32, 2)])
def test_shares_are_whole_batches_and_all_of_the_pass(images: int, count: int) -> None:
    passes = [
        ViewPass(-1, Augmentation(), np.arange(images)),
        ViewPass(0, Augmentation(), np.arange(images, images + 7)),
    ]
    parts = [[*Shard(index, count).select_passes(passes, 16)] for index in range(count)]
    held = [np.concatenate([one.positions for one in part]) for part in parts]
    assert np.concatenate(held).tolist() == list(range(images + 7))
    assert len(held[0]) > 0
    for part in parts:
        for one, whole in zip(part, passes, strict=True):
            assert len(one.positions) == 0 or (one.positions[0] - whole.positions[0]) % 16 == 0


def test_those_that_see_no_common_folder_compute_for_themselves(tmp_path: Path) -> None:
    """Two nodes with a disk each, and two processes on the first."""
    many = together([feature_cache(tmp_path / node) for node in ("a", "a", "b")], found)
    assert all(torch.equal(one.features.values, many[0].features.values) for one in many)
    assert len(everything(tmp_path / "a")) == len(everything(tmp_path / "b")) == 2


def test_where_one_node_has_them_the_other_computes_its_own(tmp_path: Path) -> None:
    found(feature_cache(tmp_path / "a"))
    first, second = together([feature_cache(tmp_path / "a"), feature_cache(tmp_path / "b")], found)
    assert first.seconds == 0
    assert second.seconds > 0
    assert torch.equal(first.features.values, second.features.values)


def test_all_hear_that_one_of_them_has_a_full_disk_and_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Shard.get_path
    monkeypatch.setattr(Shard, "file", lambda one, folder: Path("/dev/full") if one.index else file(one, folder))

    def fault(cache: FeatureCache) -> str:
        with pytest.raises(UserError) as told:
            found(cache)
        return str(told.value)

    told = together([feature_cache(tmp_path) for _ in range(3)], fault)
    assert all("No space left on device" in one for one in told)
    assert everything(tmp_path) == []
    assert not [path for path in (tmp_path / "features").iterdir() if "partial" in path.name]
