"""Random crops and mirror images from dice that are handed in."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as F

from tests.data.pictures import pixels_of
from thaw.data.augmentation import Augmentation, _crop_box

RATIO = (3 / 4, 4 / 3)
SIZES = [(32, 32), (32, 57), (200, 33), (224, 224), (1, 1), (2, 3), (1, 300), (300, 1), (17, 16)]


def image_of(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(pixels_of(height, width)).permute(2, 0, 1)


def boxes(height: int, width: int, scale: tuple[float, float], count: int = 300) -> np.ndarray:
    """int [count, 4]: top, left, height, width."""
    dice = np.random.default_rng(0)
    return np.array([_crop_box(height, width, scale, RATIO, dice) for _ in range(count)])


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("scale", [(0.08, 1.0), (1.0, 1.0), (0.001, 0.01), (0.9, 1.0)], ids=str)
def test_a_crop_lies_inside_the_image(size: tuple[int, int], scale: tuple[float, float]) -> None:
    top, left, height, width = boxes(*size, scale).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (height >= 1).all()
    assert (width >= 1).all()
    assert (top + height <= size[0]).all()
    assert (left + width <= size[1]).all()


@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.25, 0.5), (0.7, 0.8)], ids=str)
def test_a_crop_keeps_a_share_of_the_area_and_a_ratio_within_bounds(scale: tuple[float, float]) -> None:
    _, _, height, width = boxes(400, 500, scale).T
    share = height * width / (400 * 500)
    assert (share > scale[0] * 0.98).all()
    assert (share < scale[1] * 1.02).all()
    assert (width / height > RATIO[0] * 0.98).all()
    assert (width / height < RATIO[1] * 1.02).all()


def test_crops_reach_both_ends_of_scale_and_every_edge_of_the_image() -> None:
    top, left, height, width = boxes(64, 64, (0.2, 1.0), count=3000).T
    share = height * width / 64**2
    assert share.min() < 0.22
    assert share.max() > 0.95
    assert (top == 0).any()
    assert (left == 0).any()
    assert (top + height == 64).any()
    assert (left + width == 64).any()


def test_where_no_crop_fits_the_centre_is_taken_with_the_nearest_ratio() -> None:
    dice = np.random.default_rng(0)
    assert _crop_box(300, 30, (1.0, 1.0), RATIO, dice) == (130, 0, 40, 30)
    assert _crop_box(30, 300, (1.0, 1.0), RATIO, dice) == (0, 130, 30, 40)


def test_the_same_dice_give_the_same_result_and_other_dice_another() -> None:
    augmentation, image = Augmentation(scale=(0.2, 1.0), flip=0.5), image_of(40, 50)
    first, again, other = (augmentation.apply(image, 24, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_crop_is_that_box_resized() -> None:
    image = image_of(40, 50)
    top, left, height, width = _crop_box(40, 50, (0.2, 0.5), RATIO, np.random.default_rng(4))
    expected = F.resize(image[:, top : top + height, left : left + width], [24, 24], antialias=True)
    augmented = Augmentation(scale=(0.2, 0.5)).apply(image, 24, np.random.default_rng(4))
    assert torch.equal(augmented, expected)


@pytest.mark.parametrize("seed", range(8))
def test_probability_one_mirrors_every_image_and_zero_none(seed: int) -> None:
    image = image_of(24, 24)
    always, never = (Augmentation(flip=flip).apply(image, 24, np.random.default_rng(seed)) for flip in (1.0, 0.0))
    assert torch.equal(always, image.flip(2))
    assert torch.equal(never, image)


def test_probability_one_quarter_mirrors_a_quarter_of_the_images() -> None:
    image, augmentation = image_of(8, 8), Augmentation(flip=0.25)
    dice = np.random.default_rng(0)
    mirrored = sum(torch.equal(augmentation.apply(image, 8, dice), image.flip(2)) for _ in range(1000))
    assert 200 < mirrored < 300  # four deviations of 14


def test_without_scale_the_centre_is_cut() -> None:
    image = image_of(30, 41)
    augmented = Augmentation(flip=0.0).apply(image, 24, np.random.default_rng(0))
    assert torch.equal(augmented, F.center_crop(image, [24, 24]))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("augmentation", [Augmentation(scale=(0.08, 1.0), flip=0.5), Augmentation(flip=1.0)], ids=str)
def test_the_smallest_and_the_thinnest_image_give_bytes_of_the_size_asked_for(
    size: tuple[int, int], augmentation: Augmentation
) -> None:
    augmented = augmentation.apply(image_of(*size), 20, np.random.default_rng(0))
    assert (augmented.dtype, augmented.shape) == (torch.uint8, (3, 20, 20))


def test_the_image_handed_in_is_left_as_it_was() -> None:
    image = image_of(30, 30)
    before = image.clone()
    Augmentation(scale=(0.5, 1.0), flip=1.0).apply(image, 24, np.random.default_rng(0)).zero_()
    assert torch.equal(image, before)


def test_an_augmentation_that_changes_nothing_says_so() -> None:
    assert Augmentation().is_empty
    assert not Augmentation(flip=0.1).is_empty
    assert not Augmentation(scale=(1.0, 1.0)).is_empty
