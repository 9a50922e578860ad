"""Features of frozen stages: computed once for each image, found again for the same work, and for no other."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import thaw.features.extract
from tests.damage import DAMAGES, WarningReporter, fill_with_zeros, flip_bit, truncate
from tests.data.tables import build_sample_table
from thaw.config.errors import UserError
from thaw.data.augmentation import Augmentation
from thaw.data.batches import EpochBatchSampler, ImageDataset, SequentialBatchSampler
from thaw.data.image_store import ImageStore
from thaw.data.preprocessing import Preprocessing
from thaw.data.sample_table import HashTable, Sample
from thaw.data.samples import Samples
from thaw.data.transforms import apply_augmentation
from thaw.features.cache import CacheResult, FeatureCache
from thaw.features.cache_key import FeatureSpec
from thaw.features.extract import ExecutionConfig
from thaw.features.speed import SpeedTest, find_fastest_memory_format
from thaw.features.views import Views, build_views
from thaw.models.network import Network, Normalize
from thaw.models.precision import NetworkPrecision, build_uniform_precision
from thaw.system.cache_entries import list_complete_entries
from thaw.system.reporter import Reporter

SIZE, CLASSES = 8, ("ant", "bee")
PREPROCESSING = Preprocessing(SIZE, SIZE, "bilinear", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
SPLITS = ("train", "train", "train", "train", "val", "test")
DUPLICATE = 3  # this sample has the bytes of the one before


def build_pixels() -> np.ndarray:
    values = np.random.default_rng(0).integers(0, 256, (len(SPLITS), SIZE, SIZE, 3), dtype=np.uint8)
    values[DUPLICATE] = values[DUPLICATE - 1]
    return values


def build_samples(splits: Sequence[str] = SPLITS, changed_index: int | None = None) -> Samples:
    contents = [image.tobytes() for image in build_pixels()]
    if changed_index is not None:
        contents[changed_index] += b"!"
    hashes = [hashlib.sha256(content).hexdigest() for content in contents]
    rows = [Sample(f"{index}.png", index % 2, split) for index, split in enumerate(splits)]
    return Samples(Path("nowhere"), build_sample_table(CLASSES, rows), {}, HashTable.build(hashes))


def build_images(samples: Samples, augmentation: Augmentation | None = None) -> ImageDataset:
    pixels = build_pixels()
    starts, shapes = np.arange(len(pixels)) * pixels[0].size, np.full((len(pixels), 2), SIZE)
    store = ImageStore(pixels.reshape(-1), starts, shapes)
    return ImageDataset(store, samples.get_labels(), SIZE, augmentation or Augmentation(), seed=3)


def build_network(seed: int = 0) -> Network:
    torch.manual_seed(seed)
    stem = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
    layer1 = nn.Sequential(nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.ReLU())
    return Network({"stem": stem, "layer1": layer1}, nn.Linear(6, len(CLASSES)))


def build_cache(root: Path, samples: Samples | None = None, **changes: Any) -> FeatureCache:
    """Build a cache in `root`; `changes` are fields of the cache or of its spec."""
    samples = samples or build_samples()
    spec_names = [field.name for field in dataclasses.fields(FeatureSpec)]
    spec_changes = {name: changes.pop(name) for name in spec_names if name in changes}
    views: Views = spec_changes.pop("views", None) or build_views(samples, Augmentation(), 3, None)
    cache = FeatureCache(
        root,
        max_bytes=2**30,
        spec=dataclasses.replace(FeatureSpec("test 1 tiny", PREPROCESSING, views), **spec_changes),
        images=build_images(samples),
        execution=ExecutionConfig(torch.device("cpu"), 0),
        bytes_per_image={1: 4 * SIZE * SIZE * 4, 2: 6 * 4},
        metadata={"dataset": "insects", "backbone": "two stages"},
    )
    return dataclasses.replace(cache, **changes)


def get_or_compute(cache: FeatureCache, network: Network, depths: Sequence[int]) -> CacheResult:
    return cache.get_or_compute(network, cache.compute_keys(network, depths))


def compute_key(cache: FeatureCache, network: Network, depth: int) -> str:
    return cache.compute_keys(network, [depth])[depth]


def compute_expected(network: Network, depth: int, pixels: torch.Tensor) -> torch.Tensor:
    """Return what the leading `depth` stages compute, without the code under test."""
    network.eval()
    with torch.no_grad():
        values = network.forward_stages(Normalize(PREPROCESSING)(pixels), 0, depth)
    return values.mean((2, 3)) if depth == 2 else values


def list_folders(root: Path) -> list[Path]:
    return [entry.path for entry in list_complete_entries("features", root)]


@pytest.mark.parametrize("depth", [1, 2])
def test_each_sample_has_what_the_stages_compute_for_it(tmp_path: Path, depth: int) -> None:
    network = build_network()
    features = get_or_compute(build_cache(tmp_path), network, [depth]).features
    expected = compute_expected(network, depth, torch.from_numpy(build_pixels()).permute(0, 3, 1, 2))
    assert torch.allclose(features.get_evaluation_features(np.arange(len(SPLITS))), expected, atol=1e-5)
    assert len(features.values) == len(SPLITS) - 1, "two samples have the same bytes"


def test_the_network_is_not_changed(tmp_path: Path) -> None:
    network = build_network().train()
    network.stages["stem"].eval()
    previous_state = {name: value.clone() for name, value in network.state_dict().items()}
    get_or_compute(build_cache(tmp_path), network, [2])
    assert all(torch.equal(value, previous_state[name]) for name, value in network.state_dict().items())
    assert [network.training, network.stages["stem"].training, network.stages["layer1"].training] == [True, False, True]
    assert all(parameter.is_contiguous() for parameter in network.parameters())
    network(torch.zeros(2, 3, SIZE, SIZE)).sum().backward()
    assert network.head.weight.grad is not None


def test_the_type_of_the_weights_is_restored_after_double_precision(tmp_path: Path) -> None:
    network = build_network()
    network.precision = build_uniform_precision("64-true")
    assert get_or_compute(build_cache(tmp_path), network, [2]).features.values.dtype == torch.float64
    assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}


def test_features_are_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = get_or_compute(build_cache(tmp_path), build_network(), [2])
    assert first.seconds > 0
    monkeypatch.setattr(thaw.features.cache, "extract_features", pytest.fail)
    second = get_or_compute(build_cache(tmp_path), build_network(), [2])
    assert second.seconds == 0
    assert torch.equal(first.features.values, second.features.values)


def test_one_pass_computes_several_stages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, network = build_cache(tmp_path), build_network()
    assert get_or_compute(cache, network, [2, 1]).features.depth == 2
    assert len(list_folders(tmp_path)) == 2
    monkeypatch.setattr(thaw.features.cache, "extract_features", pytest.fail)
    maps = get_or_compute(cache, network, [1]).features
    expected = compute_expected(network, 1, torch.from_numpy(build_pixels()[:1]).permute(0, 3, 1, 2))
    assert torch.allclose(maps.get_evaluation_features(np.array([0])), expected, atol=1e-5)


def test_another_split_of_the_same_images_shares_the_features(tmp_path: Path) -> None:
    get_or_compute(build_cache(tmp_path), build_network(), [2])
    other_samples = build_samples(("test", "train", "train", "val", "train", "train"))
    assert get_or_compute(build_cache(tmp_path, other_samples), build_network(), [2]).seconds == 0


def test_progress_counts_every_computed_image(tmp_path: Path, recording_reporter: RecordingReporter) -> None:
    cache = build_cache(tmp_path, reporter=recording_reporter)
    get_or_compute(cache, build_network(), [2])
    num_images = len(SPLITS) - 1
    assert recording_reporter.totals == [("computing features", num_images)]
    assert sum(recording_reporter.steps) == num_images
    get_or_compute(cache, build_network(), [2])
    assert len(recording_reporter.totals) == 1, "nothing is computed twice"


class RecordingReporter(Reporter):
    """Remembers the progress bars and their steps."""

    def __init__(self) -> None:
        self.totals: list[tuple[str, int]] = []
        self.steps: list[int] = []

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        self.totals.append((description, total))
        yield self.steps.append


@pytest.fixture
def recording_reporter() -> RecordingReporter:
    return RecordingReporter()


def change_weight(network: Network) -> None:
    with torch.no_grad():
        network.stages["stem"][0].weight[0, 0, 0, 0] += 1e-6


def change_statistic(network: Network) -> None:
    network.stages["stem"][1].running_mean[0] += 1e-6


def change_precision(network: Network) -> None:
    network.precision = NetworkPrecision("32-true", "bf16-mixed", 1)


@pytest.mark.parametrize(
    ("changes", "change_network"),
    [
        ({"samples": build_samples(changed_index=0)}, None),
        ({}, change_weight),
        ({}, change_statistic),
        ({"preprocessing": dataclasses.replace(PREPROCESSING, size=7)}, None),
        ({"preprocessing": dataclasses.replace(PREPROCESSING, resize=9)}, None),
        ({"preprocessing": dataclasses.replace(PREPROCESSING, mean=(0.4, 0.5, 0.61))}, None),
        ({"preprocessing": dataclasses.replace(PREPROCESSING, interpolation="bicubic")}, None),
        ({}, change_precision),
        ({"architecture": "test 2 tiny"}, None),
        ({"views": build_views(build_samples(), Augmentation(flip=0.5), 3, None)}, None),
    ],
    ids=["bytes", "weight", "statistic", "size", "resize", "mean", "interpolation", "precision", "library", "views"],
)
def test_the_key_changes_with_everything_that_features_depend_on(
    tmp_path: Path, changes: dict[str, Any], change_network: Callable[[Network], None] | None
) -> None:
    expected_key = compute_key(build_cache(tmp_path), build_network(), 2)
    network = build_network()
    if change_network:
        change_network(network)
    assert compute_key(build_cache(tmp_path, **changes), network, 2) != expected_key
    assert compute_key(build_cache(tmp_path), build_network(), 1) != expected_key
    assert compute_key(build_cache(tmp_path), build_network(), 2) == expected_key


def test_later_stages_do_not_change_the_key(tmp_path: Path) -> None:
    network = build_network()
    with torch.no_grad():
        network.head.weight += 1
        network.stages["layer1"][0].weight += 1
    assert compute_key(build_cache(tmp_path), network, 1) == compute_key(build_cache(tmp_path), build_network(), 1)


def test_half_precision_is_cached_as_half_precision(tmp_path: Path) -> None:
    network = build_network()
    network.precision = build_uniform_precision("bf16-mixed")
    half = get_or_compute(build_cache(tmp_path), network, [1]).features.values
    assert half.dtype == torch.bfloat16
    full = get_or_compute(build_cache(tmp_path), build_network(), [1]).features.values
    assert torch.allclose(half.float(), full, atol=0.05)
    assert not torch.equal(half.float(), full)


@pytest.mark.parametrize("num_frozen_stages", [1, 2])
def test_cached_features_in_bf16_give_the_bits_that_images_give(
    num_frozen_stages: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(thaw.features.cache, "find_fastest_memory_format", lambda *_: "contiguous")
    network, cache = build_network().eval(), build_cache(tmp_path)
    network.precision = NetworkPrecision("32-true", "bf16-mixed", num_frozen_stages)
    (view_pass,) = cache.spec.views.passes
    pixels = torch.from_numpy(build_pixels()[view_pass.positions]).permute(0, 3, 1, 2)
    images = Normalize(PREPROCESSING)(pixels).contiguous()
    with torch.inference_mode():
        expected = network(images)
        for depth in (1, 2):
            features = get_or_compute(cache, network, [depth]).features.values
            assert features.dtype == (torch.bfloat16 if depth <= num_frozen_stages else torch.float32)
            assert torch.equal(network.forward_from(features, depth), expected)


@pytest.mark.parametrize("augmentation", [Augmentation(), Augmentation(flip=0.5), Augmentation(shift=True, flip=0.5)])
def test_batches_of_features_match_batches_of_images(tmp_path: Path, augmentation: Augmentation) -> None:
    """The samples come in the same order, and in each epoch with a view that training on images could see."""
    samples, network = build_samples(), build_network()
    views = build_views(samples, augmentation, 3, 2 if augmentation.shift else None)
    cache = build_cache(tmp_path, samples, views=views, images=build_images(samples, augmentation))
    features = get_or_compute(cache, network, [2]).features
    for epoch in range(4):
        batch_sampler = EpochBatchSampler(samples.get_positions("train"), 2, seed=5, epoch=epoch)
        for batch, indices in zip(features.iter_batches(batch_sampler), batch_sampler, strict=True):
            positions = [position for _, position in indices]
            assert batch.positions.tolist() == positions
            assert batch.labels.tolist() == samples.get_labels()[positions].tolist()
            assert batch.depth == 2
            view_epochs = [0, 1] if augmentation.shift else [epoch]
            candidates = [
                load_pixels(cache.images, [(view_epoch, position) for position in positions])
                for view_epoch in view_epochs
            ]
            differences = torch.stack(
                [(compute_expected(network, 2, pixels) - batch.images).abs().amax(1) for pixels in candidates]
            )
            assert differences.min(0).values.max() < 1e-4
    test_batch = next(features.iter_batches(SequentialBatchSampler(samples.get_positions("test"), 2)))
    test_pixels = torch.from_numpy(build_pixels()[samples.get_positions("test")]).permute(0, 3, 1, 2)
    assert torch.allclose(test_batch.images, compute_expected(network, 2, test_pixels), atol=1e-5)


def load_pixels(images: ImageDataset, indices: list[tuple[int, int]]) -> torch.Tensor:
    """Return the augmented pixels of (epoch, position) pairs."""
    batch = images.__getitems__(indices)
    if not batch.augmentation_params:
        return batch.images.float()
    return apply_augmentation(batch.images, batch.augmentation_params, SIZE)


def test_epochs_see_random_views_equally_often() -> None:
    samples = build_samples()
    views = build_views(samples, Augmentation(shift=True), 3, 4)
    copies = samples.get_positions("train")
    view_indices = np.array([views.select_views(epoch, copies) for epoch in range(400)])
    counts = np.bincount(view_indices.reshape(-1), minlength=5)
    assert counts[0] == 0, "training does not see the plain image"
    assert np.abs(counts[1:] / counts.sum() - 0.25).max() < 0.05


def test_the_least_recently_used_features_are_evicted(tmp_path: Path) -> None:
    cache = build_cache(tmp_path)
    get_or_compute(cache, build_network(), [2])
    (folder,) = list_folders(tmp_path)
    os.utime(folder / "meta.json", (time.time() - 100,) * 2)
    other_network = build_network()
    change_weight(other_network)
    size = sum(file.stat().st_size for file in folder.iterdir())
    result = get_or_compute(dataclasses.replace(cache, max_bytes=size + 10), other_network, [2])
    assert [entry.path for entry in result.evicted] == [folder]
    assert list_folders(tmp_path) == [tmp_path / "features" / compute_key(cache, other_network, 2)]
    assert "a feature cache, used longest ago, made room" in next(result.describe())


def test_recently_used_features_are_not_evicted(tmp_path: Path) -> None:
    cache, networks = build_cache(tmp_path), [build_network(), build_network(), build_network()]
    change_weight(networks[1])
    change_statistic(networks[2])
    for age, network in ((200, networks[0]), (100, networks[1])):
        get_or_compute(cache, network, [2])
        os.utime(cache.folder / compute_key(cache, network, 2) / "meta.json", (time.time() - age,) * 2)
    get_or_compute(cache, networks[0], [2])  # used again
    size = sum(file.stat().st_size for file in list_folders(tmp_path)[0].iterdir())
    get_or_compute(dataclasses.replace(cache, max_bytes=2 * size + 60), networks[2], [2])
    assert [cache.has_key(compute_key(cache, network, 2)) for network in networks] == [True, False, True]


def test_features_larger_than_the_limit_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cache\.gib="):
        get_or_compute(build_cache(tmp_path, max_bytes=10.0), build_network(), [2])


def test_a_full_disk_raises_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thaw.features.extract, "VALUES_FILE", "/dev/full")  # every write to it finds no space
    with pytest.raises(UserError, match="No space left on device"):
        get_or_compute(build_cache(tmp_path), build_network(), [2])
    assert list_folders(tmp_path) == []
    assert not [path for path in (tmp_path / "features").iterdir() if "partial" in path.name]


def test_features_are_described_by_their_metadata(tmp_path: Path) -> None:
    get_or_compute(build_cache(tmp_path), build_network(), [2])
    metadata = json.loads((list_folders(tmp_path)[0] / "meta.json").read_text())
    expected = {"dataset": "insects", "stage": "layer1", "rows": 5, "shape": [6], "dtype": "float32"}
    assert expected.items() <= metadata.items()


@pytest.mark.parametrize("name", ["values.bin", "meta.json", "checksums.txt"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_features_are_computed_again_with_a_warning(
    tmp_path: Path, name: str, damage: Callable[[Path], None]
) -> None:
    reporter, network = WarningReporter(), build_network()
    cache = build_cache(tmp_path, reporter=reporter)
    expected = get_or_compute(cache, network, [2]).features.values
    (folder,) = list_folders(tmp_path)
    damage(folder / name)
    result = get_or_compute(cache, network, [2])
    assert result.seconds > 0
    assert torch.equal(result.features.values, expected)
    assert reporter.warnings == [f"the cached features in {folder} were damaged and are computed again"]
    assert get_or_compute(cache, network, [2]).seconds == 0
    assert len(reporter.warnings) == 1


def test_features_of_other_weights_under_the_same_key_are_not_used(tmp_path: Path) -> None:
    cache, networks = build_cache(tmp_path), [build_network(seed) for seed in (0, 1)]
    expected, _ = (get_or_compute(cache, network, [2]).features.values.clone() for network in networks)
    folder, other_folder = (cache.folder / compute_key(cache, network, 2) for network in networks)
    shutil.rmtree(folder)
    other_folder.rename(folder)
    assert torch.equal(get_or_compute(cache, networks[0], [2]).features.values, expected)


def replace_by_folder(file: Path) -> None:
    file.unlink()
    file.mkdir()


@pytest.mark.parametrize("damage", [flip_bit, truncate, fill_with_zeros, replace_by_folder])
def test_damaged_times_of_memory_formats_are_measured_again_with_a_warning(
    tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    reporter = WarningReporter()
    arguments = (SpeedTest(build_network(), "tiny", 8, tmp_path, reporter), torch.device("cpu"))
    memory_format = find_fastest_memory_format(*arguments)
    assert find_fastest_memory_format(*arguments) == memory_format
    assert reporter.warnings == []
    (file,) = tmp_path.glob("*.json")
    damage(file)
    find_fastest_memory_format(*arguments)
    find_fastest_memory_format(*arguments)
    assert reporter.warnings == [f"the measured times in {file} were damaged and are measured again"]
