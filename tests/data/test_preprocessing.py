"""What the weights expect, held against torchvision's own transforms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import EfficientNet_B0_Weights, ResNet18_Weights, ResNet50_Weights, WeightsEnum
from torchvision.transforms import functional as F

from tests.data.pictures import picture, pixels_of
from thaw.data.preprocessing import Preprocessing, resize_image
from thaw.data.test_time_augmentation import center_crop

SIZES = [
    (333, 500),
    (500, 333),
    (299, 301),
    (301, 299),
    (256, 256),
    (97, 65),
    (65, 97),
    (40, 211),
    (211, 40),
    (224, 999),
]
WEIGHTS = [ResNet18_Weights.IMAGENET1K_V1, ResNet50_Weights.IMAGENET1K_V2, EfficientNet_B0_Weights.IMAGENET1K_V1]


def of_weights(weights: WeightsEnum) -> Preprocessing:
    preset = weights.transforms()
    return Preprocessing(
        size=preset.crop_size[0],
        resize=preset.resize_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def small(**changes: object) -> Preprocessing:
    values = {"size": 24, "resize": 32, "interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return Preprocessing(**{**values, **changes})


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_resized_cropped_and_scaled_is_to_the_last_bit_what_the_weights_transforms_give(
    weights: WeightsEnum, size: tuple[int, int]
) -> None:
    image, preprocessing = picture(*size), of_weights(weights)
    crop = center_crop(torch.from_numpy(resize_image(image, preprocessing).copy()).permute(2, 0, 1), preprocessing.size)
    ours = F.normalize(F.convert_image_dtype(crop), preprocessing.mean, preprocessing.std)
    assert torch.equal(ours, weights.transforms()(image))


@pytest.mark.parametrize(
    ("size", "expected"), [((50, 80), (32, 51)), ((80, 50), (51, 32)), ((7, 7), (32, 32))], ids=str
)
def test_the_shorter_side_becomes_resize_pixels(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resize_image(picture(*size), small()).shape == (*expected, 3)


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (1, 1)], ids=str)
def test_the_thinnest_image_still_holds_a_crop(size: tuple[int, int]) -> None:
    assert min(resize_image(picture(*size), small()).shape[:2]) == 32


def test_an_image_of_the_right_size_stays_as_it_is() -> None:
    assert np.array_equal(resize_image(picture(32, 45), small()), pixels_of(32, 45))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_images_are_resized_by_the_method_named(interpolation: str) -> None:
    image = picture(50, 50)
    expected = image.resize((32, 32), Image.Resampling[interpolation.upper()])
    assert np.array_equal(resize_image(image, small(interpolation=interpolation)), np.asarray(expected))


def test_squash_brings_both_sides_to_resize_pixels() -> None:
    image = picture(50, 80)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(resize_image(image, small(squash=True)), expected)


def test_at_nothing_given_keeps_what_the_weights_were_trained_with() -> None:
    for weights in WEIGHTS:
        assert of_weights(weights).with_size(None, None) == of_weights(weights)


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        (96, None, (96, 128)),  # keeps the weights' share, 24 of 32
        (None, 1.0, (24, 24)),
        (96, 1.0, (96, 96)),
        (96, 0.5, (96, 192)),
        (100, 0.9, (100, 111)),
        (50, 0.9, (50, 56)),
    ],
)
def test_at_another_size_or_crop_resizes_so_that_the_crop_keeps_its_share(
    size: int | None, crop: float | None, expected: tuple[int, int]
) -> None:
    changed = small().with_size(size, crop)
    assert (changed.size, changed.resize) == expected


def test_at_keeps_everything_else() -> None:
    before = small(interpolation="bicubic", squash=True)
    after = before.with_size(96, 1.0)
    assert {**after.to_dict(), "size": 24, "resize": 32} == before.to_dict()


def test_plain_values_are_what_json_gives_back() -> None:
    assert small().to_dict()["mean"] == [0.5, 0.5, 0.5]
    assert small().to_dict()["size"] == 24
