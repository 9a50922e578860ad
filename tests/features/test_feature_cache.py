"""What frozen stages give: computed once for each image, found again for the same, and for nothing else."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import thaw.features.extract
from thaw.config.errors import UserError
from thaw.data.augmentation import Augmentation
from thaw.data.batches import EpochBatchSampler, ImageDataset, SequentialBatchSampler
from thaw.data.image_store import ImageStore
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Sample, Samples
from thaw.features.cache import CacheResult, FeatureCache
from thaw.features.extract import ExecutionConfig
from thaw.features.views import Views, build_views
from thaw.models.network import Network, Normalize
from thaw.system.cache_entries import list_complete_entries

SIZE, CLASSES = 8, ("ant", "bee")
PREPROCESSING = Preprocessing(SIZE, SIZE, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
SPLITS = ("train", "train", "train", "train", "val", "test")
SAME = 3  # this sample has the bytes of the one before


def pixels() -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (len(SPLITS), SIZE, SIZE, 3), dtype=np.uint8)
    values[SAME] = values[SAME - 1]
    return values


def samples(splits: Sequence[str] = SPLITS, changed: int | None = None) -> Samples:
    contents = [one.tobytes() for one in pixels()]
    if changed is not None:
        contents[changed] += b"!"
    hashes = tuple(hashlib.sha256(one).hexdigest() for one in contents)
    rows = tuple(Sample(f"{number}.png", number % 2, split) for number, split in enumerate(splits))
    return Samples(Path("nowhere"), CLASSES, rows, (), "-".join(splits), hashes)


def images(of: Samples, augmentation: Augmentation | None = None) -> ImageDataset:
    values = pixels()
    starts, shapes = np.arange(len(values)) * values[0].size, np.full((len(values), 2), SIZE)
    store = ImageStore(values.reshape(-1), starts, shapes)
    return ImageDataset(store, of.get_labels(), SIZE, augmentation or Augmentation(), seed=3)


def network() -> Network:
    torch.manual_seed(0)
    first = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
    second = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU())
    return Network({"stem": first, "layer1": second}, nn.Linear(6, len(CLASSES)))


def feature_cache(root: Path, of: Samples | None = None, **changes: Any) -> FeatureCache:
    of = of or samples()
    views: Views = changes.pop("views", None) or build_views(of, Augmentation(), 3, None)
    machine = ExecutionConfig(torch.device("cpu"), changes.pop("precision", "32-true"), 0)
    about = {"dataset": "insects", "backbone": "two stages"}
    sizes = {1: 4 * SIZE * SIZE * 4, 2: 6 * 4}
    cache = FeatureCache(root, 2**30, images(of), views, PREPROCESSING, "test 1 tiny", machine, sizes, about)
    return dataclasses.replace(cache, **changes)


def find(cache: FeatureCache, net: Network, depths: Sequence[int]) -> CacheResult:
    return cache.get_or_compute(net, cache.compute_keys(net, depths))


def key(cache: FeatureCache, net: Network, depth: int) -> str:
    return cache.compute_keys(net, [depth])[depth]


def by_hand(net: Network, depth: int, inputs: torch.Tensor) -> torch.Tensor:
    net.eval()
    with torch.no_grad():
        values = net.forward_stages(Normalize(PREPROCESSING)(inputs), 0, depth)
    return values.mean((2, 3)) if depth == 2 else values


def everything(root: Path) -> list[Path]:
    return [one.path for one in list_complete_entries("features", root)]


@pytest.mark.parametrize("depth", [1, 2])
def test_each_sample_has_what_the_stages_give_for_it(tmp_path: Path, depth: int) -> None:
    net = network()
    found = find(feature_cache(tmp_path), net, [depth])
    expected = by_hand(net, depth, torch.from_numpy(pixels()).permute(0, 3, 1, 2))
    assert torch.allclose(found.features.get_evaluation_features(np.arange(len(SPLITS))), expected, atol=1e-5)
    assert len(found.features.values) == len(SPLITS) - 1, "two samples have the same bytes"


def test_the_network_is_left_as_it_was(tmp_path: Path) -> None:
    net = network().train()
    net.stages["stem"].eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    find(feature_cache(tmp_path), net, [2])
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [net.training, net.stages["stem"].training, net.stages["layer1"].training] == [True, False, True]
    assert all(one.is_contiguous() for one in net.parameters())
    net(torch.zeros(2, 3, SIZE, SIZE)).sum().backward()
    assert net.head.weight.grad is not None


def test_they_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = find(feature_cache(tmp_path), network(), [2])
    assert first.seconds > 0
    monkeypatch.setattr(thaw.features.cache, "extract_features", pytest.fail)
    again = find(feature_cache(tmp_path), network(), [2])
    assert again.seconds == 0
    assert torch.equal(first.features.values, again.features.values)


def test_one_pass_serves_several_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, net = feature_cache(tmp_path), network()
    both = find(cache, net, [2, 1])
    assert both.features.depth == 2
    assert len(everything(tmp_path)) == 2
    monkeypatch.setattr(thaw.features.cache, "extract_features", pytest.fail)
    maps = find(cache, net, [1]).features
    expected = by_hand(net, 1, torch.from_numpy(pixels()[:1]).permute(0, 3, 1, 2))
    assert torch.allclose(maps.get_evaluation_features(np.array([0])), expected, atol=1e-5)


def test_another_split_of_the_same_images_shares_them(tmp_path: Path) -> None:
    find(feature_cache(tmp_path), network(), [2])
    other = samples(("test", "train", "train", "val", "train", "train"))
    found = find(feature_cache(tmp_path, other), network(), [2])
    assert found.seconds == 0


def a_weight(net: Network) -> None:
    with torch.no_grad():
        net.stages["stem"][0].weight[0, 0, 0, 0] += 1e-6


def a_statistic(net: Network) -> None:
    net.stages["stem"][1].running_mean[0] += 1e-6


@pytest.mark.parametrize(
    ("changes", "change"),
    [
        ({"of": samples(changed=0)}, None),
        ({}, a_weight),
        ({}, a_statistic),
        ({"preprocessing": dataclasses.replace(PREPROCESSING, size=7)}, None),
        ({"preprocessing": dataclasses.replace(PREPROCESSING, resize=9)}, None),
        ({"preprocessing": dataclasses.replace(PREPROCESSING, mean=(0.4, 0.5, 0.61))}, None),
        ({"preprocessing": dataclasses.replace(PREPROCESSING, interpolation="bicubic")}, None),
        ({"precision": "bf16-mixed"}, None),
        ({"architecture": "test 2 tiny"}, None),
        ({"views": build_views(samples(), Augmentation(flip=0.5), 3, None)}, None),
    ],
    ids=["bytes", "weight", "statistic", "size", "resize", "mean", "interpolation", "precision", "library", "views"],
)
def test_whatever_they_depend_on_changes_the_key(
    tmp_path: Path, changes: dict[str, Any], change: Callable[[Network], None] | None
) -> None:
    before = key(feature_cache(tmp_path), network(), 2)
    net = network()
    if change:
        change(net)
    assert key(feature_cache(tmp_path, **changes), net, 2) != before
    assert key(feature_cache(tmp_path), network(), 1) != before
    assert key(feature_cache(tmp_path), network(), 2) == before


def test_what_comes_behind_does_not_change_the_key(tmp_path: Path) -> None:
    net = network()
    with torch.no_grad():
        net.head.weight += 1
        net.stages["layer1"][0].weight += 1
    assert key(feature_cache(tmp_path), net, 1) == key(feature_cache(tmp_path), network(), 1)


def test_half_precision_is_kept_as_it_is(tmp_path: Path) -> None:
    found = find(feature_cache(tmp_path, precision="bf16-mixed"), network(), [1]).features
    assert found.values.dtype == torch.bfloat16
    exact = find(feature_cache(tmp_path), network(), [1]).features
    assert torch.allclose(found.values.float(), exact.values, atol=0.05)
    assert not torch.equal(found.values.float(), exact.values)


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(flip=0.5), Augmentation(shift=True, flip=0.5)])
def test_batches_are_those_of_the_images(tmp_path: Path, augmentation: Augmentation) -> None:
    """The same samples in the same order, and in each epoch the view that training on images sees, or one of them."""
    of, net = samples(), network()
    views = build_views(of, augmentation, 3, None if not augmentation.shift else 2)
    cache = feature_cache(tmp_path, of, views=views, images=images(of, augmentation))
    features = find(cache, net, [2]).features
    for epoch in range(4):
        order = EpochBatchSampler(of.get_positions("train"), 2, seed=5, epoch=epoch)
        for batch, wanted in zip(features.iter_batches(order), order, strict=True):
            positions = [position for _, position in wanted]
            assert batch.positions.tolist() == positions
            assert batch.labels.tolist() == of.get_labels()[positions].tolist()
            assert batch.depth == 2
            epochs = [epoch] if not augmentation.shift else [0, 1]
            seen = [shown(cache.images, [(one, position) for position in positions]) for one in epochs]
            apart = torch.stack([(by_hand(net, 2, one) - batch.images).abs().amax(1) for one in seen])
            assert apart.min(0).values.max() < 1e-4
    evaluated = next(features.iter_batches(SequentialBatchSampler(of.get_positions("test"), 2)))
    plain = torch.from_numpy(pixels()[of.get_positions("test")]).permute(0, 3, 1, 2)
    assert torch.allclose(evaluated.images, by_hand(net, 2, plain), atol=1e-5)


def shown(of: ImageDataset, wanted: list[tuple[int, int]]) -> torch.Tensor:
    from thaw.data.transforms import apply_augmentation

    batch = of.__getitems__(wanted)
    return (
        apply_augmentation(batch.images, batch.augmentation_params, SIZE)
        if batch.augmentation_params
        else batch.images.float()
    )


def test_the_views_of_an_epoch_differ_from_epoch_to_epoch_and_come_equally_often() -> None:
    of = samples()
    views = build_views(of, Augmentation(shift=True), 3, 4)
    copies = np.repeat(of.get_positions("train"), 1)
    seen = np.array([views.select_views(epoch, copies) for epoch in range(400)])
    counts = np.bincount(seen.reshape(-1), minlength=5)
    assert counts[0] == 0, "none is the plain image"
    assert np.abs(counts[1:] / counts.sum() - 0.25).max() < 0.05


def test_the_oldest_make_room(tmp_path: Path) -> None:
    kept, wide = feature_cache(tmp_path), network()
    find(kept, wide, [2])
    (first,) = everything(tmp_path)
    os.utime(first / "meta.json", (time.time() - 100,) * 2)
    other = network()
    a_weight(other)
    size = sum(file.stat().st_size for file in first.iterdir())
    found = find(dataclasses.replace(kept, max_bytes=size + 10), other, [2])
    assert [one.path for one in found.evicted] == [first]
    assert everything(tmp_path) == [tmp_path / "features" / key(kept, other, 2)]
    assert "a feature cache, used longest ago, made room" in next(found.describe())


def test_what_was_used_last_stays(tmp_path: Path) -> None:
    cache, nets = feature_cache(tmp_path), [network(), network(), network()]
    a_weight(nets[1])
    a_statistic(nets[2])
    for age, net in ((200, nets[0]), (100, nets[1])):
        find(cache, net, [2])
        os.utime(cache.folder / key(cache, net, 2) / "meta.json", (time.time() - age,) * 2)
    find(cache, nets[0], [2])  # used again
    size = sum(file.stat().st_size for file in everything(tmp_path)[0].iterdir())
    find(dataclasses.replace(cache, max_bytes=2 * size + 60), nets[2], [2])
    assert [cache.has_key(key(cache, net, 2)) for net in nets] == [True, False, True]


def test_features_larger_than_the_bound_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cache\.gib="):
        find(feature_cache(tmp_path, max_bytes=10.0), network(), [2])


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thaw.features.extract, "VALUES_FILE", "/dev/full")  # every write to it finds no space
    with pytest.raises(UserError, match="No space left on device"):
        find(feature_cache(tmp_path), network(), [2])
    assert everything(tmp_path) == []
    assert not [path for path in (tmp_path / "features").iterdir() if "partial" in path.name]


def test_they_say_what_they_are(tmp_path: Path) -> None:
    find(feature_cache(tmp_path), network(), [2])
    about = json.loads((everything(tmp_path)[0] / "meta.json").read_text())
    assert {
        "dataset": "insects",
        "stage": "layer1",
        "rows": 5,
        "shape": [6],
        "dtype": "float32",
    }.items() <= about.items()
