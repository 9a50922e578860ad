"""Order and augmentation of batches depend only on seed, epoch and sample."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from tests.data.pictures import make_pixels
from thaw.data.augmentation import Augmentation
from thaw.data.batches import Batch, EpochBatchSampler, ImageDataset, SequentialBatchSampler, build_dataloader
from thaw.data.image_store import ImageStore
from thaw.data.test_time_augmentation import center_crop
from thaw.data.transforms import apply_augmentation

SIZE = 16
AUGMENTATION = Augmentation(scale=(0.3, 1.0), flip=0.5)
pytestmark = pytest.mark.filterwarnings("error")
SHAPES = [(16, 16), (16, 24), (30, 16), (21, 21), (16, 17)]


def make_store(count: int) -> ImageStore:
    images = [make_pixels(*SHAPES[number % len(SHAPES)], seed=number) for number in range(count)]
    starts = np.concatenate([[0], np.cumsum([image.size for image in images])[:-1]])
    pixels = np.concatenate([image.ravel() for image in images])
    pixels.flags.writeable = False  # like those of a memory-mapped file
    return ImageStore(pixels, starts, np.array([image.shape[:2] for image in images]))


def make_dataset(count: int, augmentation: Augmentation = AUGMENTATION, seed: int = 0) -> ImageDataset:
    return ImageDataset(make_store(count), np.arange(count) * 10, SIZE, augmentation, seed)


def list_positions(batches: EpochBatchSampler) -> list[int]:
    return [position for batch in batches for _, position in batch]


def list_epoch_positions(batches: EpochBatchSampler, epoch: int) -> list[int]:
    batches.set_epoch(epoch)
    return list_positions(batches)


def augment(batch: Batch) -> torch.Tensor:
    return apply_augmentation(batch.images, batch.augmentation_params, SIZE)


def assert_equal(first: Iterable[Batch], second: Iterable[Batch]) -> None:
    for batch, other in zip(first, second, strict=True):
        assert all(torch.equal(left, right) for left, right in zip(batch[:3], other[:3], strict=True))
        assert batch.augmentation_params.keys() == other.augmentation_params.keys()
        assert all(
            torch.equal(value, other.augmentation_params[name]) for name, value in batch.augmentation_params.items()
        )


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16, 17, 23])
@pytest.mark.parametrize("batch_size", [2, 4, 8])
def test_each_position_comes_exactly_once_per_epoch(count: int, batch_size: int) -> None:
    positions = np.arange(100, 100 + count)
    assert sorted(list_positions(EpochBatchSampler(positions, batch_size, seed=0))) == positions.tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16, 17, 23])
def test_the_length_is_the_number_of_batches(count: int) -> None:
    batches = EpochBatchSampler(np.arange(count), 8, seed=0)
    assert len(list(batches)) == len(batches)


@pytest.mark.parametrize(
    ("count", "sizes"), [(16, [8, 8]), (17, [8, 9]), (18, [8, 8, 2]), (23, [8, 8, 7]), (9, [9]), (3, [3]), (1, [1])]
)
def test_a_last_batch_of_one_sample_is_merged_into_the_one_before(count: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in EpochBatchSampler(np.arange(count), 8, seed=0)] == sizes


def test_the_order_depends_on_seed_and_epoch() -> None:
    positions = np.arange(50)
    first = [list_epoch_positions(EpochBatchSampler(positions, 8, seed=3), epoch) for epoch in range(3)]
    batches = EpochBatchSampler(positions, 8, seed=3)
    assert [list_epoch_positions(batches, epoch) for epoch in (2, 1, 0)] == first[::-1]
    assert len(set(map(tuple, first))) == 3
    assert list_epoch_positions(EpochBatchSampler(positions, 8, seed=4), 0) != first[0]


def test_the_order_does_not_depend_on_global_random_generators() -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    first = list_positions(EpochBatchSampler(np.arange(50), 8, seed=0))
    np.random.seed(2)
    torch.manual_seed(2)
    assert list_positions(EpochBatchSampler(np.arange(50), 8, seed=0)) == first


def test_batches_carry_their_epoch() -> None:
    batches = EpochBatchSampler(np.arange(5), 2, seed=0)
    batches.set_epoch(7)
    assert {epoch for batch in batches for epoch, _ in batch} == {7}


def test_the_sequential_sampler_keeps_the_order_of_positions() -> None:
    positions = np.array([4, 2, 9, 7, 1])
    batches = SequentialBatchSampler(positions, 2)
    assert [[position for _, position in batch] for batch in batches] == [[4, 2], [9, 7], [1]]
    assert len(batches) == 3


def test_the_sequential_sampler_of_no_positions_is_empty() -> None:
    assert list(SequentialBatchSampler(np.array([], dtype=np.int64), 4)) == []


def test_a_batch_has_matching_images_labels_and_positions() -> None:
    dataset = make_dataset(5, Augmentation())
    images, labels, positions, params, _ = dataset.__getitems__([(0, 3), (0, 1)])
    assert params == {}
    assert (images.dtype, images.shape) == (torch.uint8, (2, 3, SIZE, SIZE))
    assert images.is_contiguous()
    assert positions.tolist() == [3, 1]
    assert labels.tolist() == [30, 10]
    expected = center_crop(torch.from_numpy(dataset.store[3].copy()).permute(2, 0, 1), SIZE)
    assert torch.equal(images[0], expected)


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (16, 19), (31, 22), (20, 21), (18, 19)])
def test_the_center_crop_matches_torchvision(size: tuple[int, int]) -> None:
    image = torch.from_numpy(make_pixels(*size)).permute(2, 0, 1)
    assert torch.equal(center_crop(image, 16), F.center_crop(image, [16, 16]))


@pytest.mark.timeout(60)
def test_two_workers_give_the_same_batches_as_none() -> None:
    def load_epochs(workers: int) -> list[Batch]:
        batches = EpochBatchSampler(np.arange(21), 4, seed=5)
        dataloader = build_dataloader(make_dataset(21, seed=5), batches, workers, pin_memory=False)
        loaded_batches: list[Batch] = []
        for epoch in range(2):
            batches.set_epoch(epoch)
            loaded_batches += list(dataloader)
        return loaded_batches

    assert_equal(load_epochs(0), load_epochs(2))


def test_the_augmentation_of_an_image_does_not_depend_on_its_batch() -> None:
    dataset = make_dataset(6)
    in_one_batch = augment(dataset.__getitems__([(2, position) for position in range(6)]))
    in_single_batches = torch.cat([augment(dataset.__getitems__([(2, position)])) for position in range(6)])
    assert torch.allclose(in_one_batch, in_single_batches, atol=1e-3), (
        "equal up to rounding: coordinates are relative to the canvas of the batch"
    )


@pytest.mark.parametrize("other", [(1, 0), (0, 1)], ids=["epoch", "seed"])
def test_augmentation_changes_with_epoch_and_seed(other: tuple[int, int]) -> None:
    epoch, seed = other
    first = augment(make_dataset(6).__getitems__([(0, position) for position in range(6)]))
    second = augment(make_dataset(6, seed=seed).__getitems__([(epoch, position) for position in range(6)]))
    assert not torch.equal(first, second)


def test_two_samples_with_the_same_pixels_are_augmented_differently() -> None:
    image = make_pixels(24, 24)
    store = ImageStore(np.tile(image.ravel(), 2), np.array([0, image.size]), np.array([[24, 24], [24, 24]]))
    images = augment(
        ImageDataset(store, np.zeros(2, dtype=np.int64), SIZE, AUGMENTATION).__getitems__([(0, 0), (0, 1)])
    )
    assert not torch.equal(images[0], images[1])


def test_evaluation_images_are_not_augmented() -> None:
    positions = np.arange(6)
    augmented_loader = build_dataloader(
        make_dataset(6), SequentialBatchSampler(positions, 4), num_workers=0, pin_memory=False
    )
    plain_loader = build_dataloader(
        make_dataset(6, Augmentation()), SequentialBatchSampler(positions, 4), num_workers=0, pin_memory=False
    )
    assert_equal(augmented_loader, plain_loader)


def test_training_images_are_augmented() -> None:
    batches = EpochBatchSampler(np.arange(6), 6, seed=0)
    augmented_batch, plain_batch = (
        next(iter(build_dataloader(make_dataset(6, augmentation), batches, num_workers=0, pin_memory=False)))
        for augmentation in (AUGMENTATION, Augmentation())
    )
    assert not torch.equal(augment(augmented_batch), plain_batch.images.float())


def test_loading_batches_does_not_write_to_the_store() -> None:
    dataset = make_dataset(4)
    before = dataset.store.pixels.copy()
    dataset.__getitems__([(0, position) for position in range(4)])[0].zero_()
    assert np.array_equal(dataset.store.pixels, before)
