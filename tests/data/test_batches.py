"""Order and augmentation are functions of seed, epoch and sample."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from tests.data.pictures import pixels_of
from thaw.data.augmentation import Augmentation
from thaw.data.batches import Batch, EpochBatchSampler, ImageDataset, SequentialBatchSampler, build_dataloader
from thaw.data.image_store import ImageStore
from thaw.data.test_time_augmentation import center_crop
from thaw.data.transforms import apply_augmentation

SIZE = 16
AUGMENTATION = Augmentation(scale=(0.3, 1.0), flip=0.5)
pytestmark = pytest.mark.filterwarnings("error")
SHAPES = [(16, 16), (16, 24), (30, 16), (21, 21), (16, 17)]


def store_with(count: int) -> ImageStore:
    images = [pixels_of(*SHAPES[number % len(SHAPES)], seed=number) for number in range(count)]
    starts = np.concatenate([[0], np.cumsum([image.size for image in images])[:-1]])
    pixels = np.concatenate([image.ravel() for image in images])
    pixels.flags.writeable = False  # as those of a memory-mapped file
    return ImageStore(pixels, starts, np.array([image.shape[:2] for image in images]))


def images_with(count: int, augmentation: Augmentation = AUGMENTATION, seed: int = 0) -> ImageDataset:
    return ImageDataset(store_with(count), np.arange(count) * 10, SIZE, augmentation, seed)


def order(batches: EpochBatchSampler) -> list[int]:
    return [position for batch in batches for _, position in batch]


def epoch_of(batches: EpochBatchSampler, epoch: int) -> list[int]:
    batches.set_epoch(epoch)
    return order(batches)


def augmented(batch: Batch) -> torch.Tensor:
    return apply_augmentation(batch.images, batch.augmentation_params, SIZE)


def assert_equal(first: Iterable[Batch], second: Iterable[Batch]) -> None:
    for one, other in zip(first, second, strict=True):
        assert all(torch.equal(left, right) for left, right in zip(one[:3], other[:3], strict=True))
        assert one.augmentation_params.keys() == other.augmentation_params.keys()
        assert all(
            torch.equal(value, other.augmentation_params[name]) for name, value in one.augmentation_params.items()
        )


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16, 17, 23])
@pytest.mark.parametrize("batch_size", [2, 4, 8])
def test_each_position_comes_exactly_once_an_epoch(count: int, batch_size: int) -> None:
    positions = np.arange(100, 100 + count)
    assert sorted(order(EpochBatchSampler(positions, batch_size, seed=0))) == positions.tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 8, 9, 16, 17, 23])
def test_as_many_batches_come_as_are_announced(count: int) -> None:
    batches = EpochBatchSampler(np.arange(count), 8, seed=0)
    assert len(list(batches)) == len(batches)


@pytest.mark.parametrize(
    ("count", "sizes"), [(16, [8, 8]), (17, [8, 9]), (18, [8, 8, 2]), (23, [8, 8, 7]), (9, [9]), (3, [3]), (1, [1])]
)
def test_a_last_batch_of_one_joins_the_one_before_it(count: int, sizes: list[int]) -> None:
    assert [len(batch) for batch in EpochBatchSampler(np.arange(count), 8, seed=0)] == sizes


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    positions = np.arange(50)
    first = [epoch_of(EpochBatchSampler(positions, 8, seed=3), epoch) for epoch in range(3)]
    batches = EpochBatchSampler(positions, 8, seed=3)
    assert [epoch_of(batches, epoch) for epoch in (2, 1, 0)] == first[::-1]
    assert len({tuple(one) for one in first}) == 3
    assert epoch_of(EpochBatchSampler(positions, 8, seed=4), 0) != first[0]


def test_the_order_does_not_hang_on_the_process_s_own_chance() -> None:
    np.random.seed(1)
    torch.manual_seed(1)
    first = order(EpochBatchSampler(np.arange(50), 8, seed=0))
    np.random.seed(2)
    torch.manual_seed(2)
    assert order(EpochBatchSampler(np.arange(50), 8, seed=0)) == first


def test_batches_carry_their_epoch() -> None:
    batches = EpochBatchSampler(np.arange(5), 2, seed=0)
    batches.set_epoch(7)
    assert {epoch for batch in batches for epoch, _ in batch} == {7}


def test_in_order_gives_every_position_as_it_stands() -> None:
    positions = np.array([4, 2, 9, 7, 1])
    batches = SequentialBatchSampler(positions, 2)
    assert [[position for _, position in batch] for batch in batches] == [[4, 2], [9, 7], [1]]
    assert len(batches) == 3


def test_in_order_of_nothing_is_nothing() -> None:
    assert list(SequentialBatchSampler(np.array([], dtype=np.int64), 4)) == []


def test_a_batch_holds_images_labels_and_positions_that_belong_together() -> None:
    dataset = images_with(5, Augmentation())
    images, labels, positions, drawn, _ = dataset.__getitems__([(0, 3), (0, 1)])
    assert drawn == {}
    assert (images.dtype, images.shape) == (torch.uint8, (2, 3, SIZE, SIZE))
    assert images.is_contiguous()
    assert positions.tolist() == [3, 1]
    assert labels.tolist() == [30, 10]
    expected = center_crop(torch.from_numpy(dataset.store[3].copy()).permute(2, 0, 1), SIZE)
    assert torch.equal(images[0], expected)


@pytest.mark.parametrize("size", [(16, 16), (17, 16), (16, 19), (31, 22), (20, 21), (18, 19)])
def test_the_centre_crop_is_torchvision_s(size: tuple[int, int]) -> None:
    image = torch.from_numpy(pixels_of(*size)).permute(2, 0, 1)
    assert torch.equal(center_crop(image, 16), F.center_crop(image, [16, 16]))


@pytest.mark.timeout(60)
def test_two_workers_give_the_same_batches_as_none_over_epochs() -> None:
    def epochs(workers: int) -> list[Batch]:
        batches = EpochBatchSampler(np.arange(21), 4, seed=5)
        feed = build_dataloader(images_with(21, seed=5), batches, workers, pin_memory=False)
        collected: list[Batch] = []
        for epoch in range(2):
            batches.set_epoch(epoch)
            collected += list(feed)
        return collected

    assert_equal(epochs(0), epochs(2))


def test_an_image_is_augmented_alike_whatever_batch_it_comes_in() -> None:
    dataset = images_with(6)
    together = augmented(dataset.__getitems__([(2, position) for position in range(6)]))
    alone = torch.cat([augmented(dataset.__getitems__([(2, position)])) for position in range(6)])
    assert torch.allclose(together, alone, atol=1e-3), "but for rounding: coordinates are shares of the batch's canvas"


@pytest.mark.parametrize("other", [(1, 0), (0, 1)], ids=["epoch", "seed"])
def test_augmentation_changes_with_epoch_and_seed(other: tuple[int, int]) -> None:
    epoch, seed = other
    first = augmented(images_with(6).__getitems__([(0, position) for position in range(6)]))
    second = augmented(images_with(6, seed=seed).__getitems__([(epoch, position) for position in range(6)]))
    assert not torch.equal(first, second)


def test_two_samples_with_the_same_pixels_are_augmented_differently() -> None:
    image = pixels_of(24, 24)
    store = ImageStore(np.tile(image.ravel(), 2), np.array([0, image.size]), np.array([[24, 24], [24, 24]]))
    images = augmented(
        ImageDataset(store, np.zeros(2, dtype=np.int64), SIZE, AUGMENTATION).__getitems__([(0, 0), (0, 1)])
    )
    assert not torch.equal(images[0], images[1])


def test_evaluation_images_are_not_augmented() -> None:
    positions = np.arange(6)
    with_changes = build_dataloader(
        images_with(6), SequentialBatchSampler(positions, 4), num_workers=0, pin_memory=False
    )
    plain = build_dataloader(
        images_with(6, Augmentation()), SequentialBatchSampler(positions, 4), num_workers=0, pin_memory=False
    )
    assert_equal(with_changes, plain)


def test_training_images_are_augmented() -> None:
    batches = EpochBatchSampler(np.arange(6), 6, seed=0)
    changed_batch, plain = (
        next(iter(build_dataloader(images_with(6, one), batches, num_workers=0, pin_memory=False)))
        for one in (AUGMENTATION, Augmentation())
    )
    assert not torch.equal(augmented(changed_batch), plain.images.float())


def test_drawing_batches_does_not_write_to_the_store() -> None:
    dataset = images_with(4)
    before = dataset.store.pixels.copy()
    dataset.__getitems__([(0, position) for position in range(4)])[0].zero_()
    assert np.array_equal(dataset.store.pixels, before)
