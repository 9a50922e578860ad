"""Preprocessing matches torchvision's transforms of the weights."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.models import EfficientNet_B0_Weights, ResNet18_Weights, ResNet50_Weights, WeightsEnum
from torchvision.transforms import functional as F

from tests.data.pictures import make_image, make_pixels
from thaw.data.augmentation import center_crop
from thaw.data.image import wrap_image
from thaw.data.preprocessing import Preprocessing
from thaw.data.resizing import resize_image

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


def from_weights(weights: WeightsEnum) -> Preprocessing:
    preset = weights.transforms()
    return Preprocessing(
        size=preset.crop_size[0],
        resize=preset.resize_size[0],
        interpolation=preset.interpolation.value,
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


def resize(image: Image.Image, preprocessing: Preprocessing) -> np.ndarray:
    return resize_image(wrap_image(image), preprocessing).copy()


def make_preprocessing(**changes: object) -> Preprocessing:
    values = {"size": 24, "resize": 32, "interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.5,) * 3}
    return Preprocessing(**{**values, **changes})


@pytest.mark.parametrize("weights", WEIGHTS, ids=str)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_preprocessing_matches_the_transforms_of_the_weights_bit_for_bit(
    weights: WeightsEnum, size: tuple[int, int]
) -> None:
    image, preprocessing = make_image(*size), replace(from_weights(weights), decoding="full")
    crop = center_crop(torch.from_numpy(resize(image, preprocessing)).permute(2, 0, 1), preprocessing.size)
    result = F.normalize(F.convert_image_dtype(crop), preprocessing.mean, preprocessing.std)
    assert torch.equal(result, weights.transforms()(image))


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [(333, 500), (500, 333), (97, 65), (40, 211), (224, 999), (1800, 1201)], ids=str)
def test_torch_resizes_as_pillow_does_but_for_roundings(interpolation: str, size: tuple[int, int]) -> None:
    preprocessing = make_preprocessing(resize=224, interpolation=interpolation)
    images = [resize(make_image(*size), replace(preprocessing, decoding=decoding)) for decoding in ("scaled", "full")]
    difference = np.abs(images[0].astype(int) - images[1])
    assert difference.max() <= 2
    assert difference.mean() < 0.05


@pytest.mark.parametrize(
    ("size", "expected"), [((50, 80), (32, 51)), ((80, 50), (51, 32)), ((7, 7), (32, 32))], ids=str
)
def test_the_shorter_side_becomes_resize_pixels(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert resize(make_image(*size), make_preprocessing()).shape == (*expected, 3)


@pytest.mark.parametrize("size", [(1, 400), (400, 1), (1, 1)], ids=str)
def test_the_thinnest_image_is_large_enough_for_a_crop(size: tuple[int, int]) -> None:
    assert min(resize(make_image(*size), make_preprocessing()).shape[:2]) == 32


def test_an_image_of_the_target_size_is_unchanged() -> None:
    assert np.array_equal(resize(make_image(32, 45), make_preprocessing()), make_pixels(32, 45))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos", "box", "hamming"])
def test_images_are_resized_by_the_configured_method(interpolation: str) -> None:
    preprocessing = make_preprocessing(interpolation=interpolation, decoding="full")
    image = make_image(50, 50)
    expected = image.resize((32, 32), Image.Resampling[interpolation.upper()])
    assert np.array_equal(resize(image, preprocessing), np.asarray(expected))


def test_squash_resizes_both_sides() -> None:
    image = make_image(50, 80)
    expected = np.asarray(image.resize((32, 32), Image.Resampling.BILINEAR))
    assert np.array_equal(resize(image, make_preprocessing(squash=True, decoding="full")), expected)


def test_without_size_and_crop_the_preprocessing_is_unchanged() -> None:
    for weights in WEIGHTS:
        assert from_weights(weights).with_size(None, None) == from_weights(weights)


@pytest.mark.parametrize(
    ("size", "crop", "expected"),
    [
        (96, None, (96, 128)),  # keeps the weights' crop fraction, 24 of 32
        (None, 1.0, (24, 24)),
        (96, 1.0, (96, 96)),
        (96, 0.5, (96, 192)),
        (100, 0.9, (100, 111)),
        (50, 0.9, (50, 56)),
    ],
)
def test_another_size_or_crop_changes_the_resize_side(
    size: int | None, crop: float | None, expected: tuple[int, int]
) -> None:
    changed = make_preprocessing().with_size(size, crop)
    assert (changed.size, changed.resize) == expected


def test_another_size_changes_nothing_else() -> None:
    before = make_preprocessing(interpolation="bicubic", squash=True)
    after = before.with_size(96, 1.0)
    assert {**after.to_dict(), "size": 24, "resize": 32} == before.to_dict()


def test_the_dictionary_contains_json_values() -> None:
    assert make_preprocessing().to_dict()["mean"] == [0.5, 0.5, 0.5]
    assert make_preprocessing().to_dict()["size"] == 24
