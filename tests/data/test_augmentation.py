"""Augmentation gives the results of torchvision, image by image, and depends only on seed, epoch and image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from thaw.data.augmentation import (
    ANGLE,
    FLIP,
    NUM_COLUMNS,
    Augmentation,
    CachedViews,
    _compute_crop_boxes,
    apply_policy,
    counter_uniform,
)
from thaw.data.batches import pad_to_canvas
from thaw.data.transforms import LUMA_WEIGHTS, apply_augmentation

IMAGE_SIZES = [(64, 90), (80, 64), (64, 64), (64, 120)]
SIZE = 56
POSITIONS = np.arange(len(IMAGE_SIZES))


def make_images() -> list[Tensor]:
    """Make smooth uint8 images, in which a shift of half a pixel makes a small difference."""
    generator = torch.Generator().manual_seed(0)
    coarse = [torch.rand(1, 3, 6, 6, generator=generator) * 255 for _ in IMAGE_SIZES]
    return [F.resize(image[0], list(size)).to(torch.uint8) for image, size in zip(coarse, IMAGE_SIZES, strict=True)]


def augment(augmentation: Augmentation, epoch: int = 1, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Return the augmented batch and the random numbers that determined it."""
    canvas, image_sizes = pad_to_canvas(make_images())
    params = augmentation.sample_params(image_sizes, SIZE, seed, epoch, POSITIONS)
    return apply_augmentation(canvas, params, SIZE), counter_uniform(seed, epoch, POSITIONS, NUM_COLUMNS)


def test_without_augmentation_the_result_is_the_center_crop() -> None:
    result, _ = augment(Augmentation())
    for result_image, picture in zip(result, make_images(), strict=True):
        assert torch.allclose(result_image, F.center_crop(picture, [SIZE, SIZE]).float(), atol=1e-3)


def test_crop_and_flip_match_torchvision() -> None:
    scale, ratio = (0.2, 1.0), (3 / 4, 4 / 3)
    result, random_values = augment(Augmentation(scale=scale, ratio=ratio, flip=0.5))
    boxes = _compute_crop_boxes(np.array(IMAGE_SIZES), scale, ratio, random_values).astype(int)
    assert len(set(random_values[:, FLIP] < 0.5)) == 2, "some images are flipped, some are not"
    for result_image, picture, box, value in zip(result, make_images(), boxes, random_values[:, FLIP], strict=True):
        expected = F.resized_crop(picture.float(), *map(int, box), [SIZE, SIZE], antialias=False)
        expected = F.horizontal_flip(expected) if value < 0.5 else expected
        # torchvision's crop ends at its box, ours interpolates beyond it: only the outermost pixels differ.
        assert (result_image - expected)[:, 1:-1, 1:-1].abs().max() < 0.5


def test_rotation_matches_torchvision() -> None:
    result, random_values = augment(Augmentation(rotation=20.0))
    for result_image, picture, value in zip(result, make_images(), random_values[:, ANGLE], strict=True):
        rotated = F.rotate(picture.float(), (2 * value - 1) * 20, interpolation=F.InterpolationMode.BILINEAR)
        expected = F.center_crop(rotated, [SIZE, SIZE])
        inner = slice(14, 42)  # torchvision fills the corners with black, we repeat the edge
        assert (result_image - expected)[:, inner, inner].abs().mean() < 0.5


def test_crop_boxes_lie_within_the_image_and_the_bounds_of_scale_and_ratio() -> None:
    image_sizes = np.tile([[200, 300]], (5000, 1))
    random_values = counter_uniform(3, 0, np.arange(5000), NUM_COLUMNS)
    top, left, height, width = _compute_crop_boxes(image_sizes, (0.1, 0.6), (3 / 4, 4 / 3), random_values).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 200).all()
    assert (left + width <= 300).all()
    fraction = height * width / (200 * 300)
    assert 0.095 < fraction.min() < 0.12
    assert 0.57 < fraction.max() < 0.62
    assert (width / height).min() > 0.73
    assert (width / height).max() < 1.36
    assert left.std() > 20
    assert top.std() > 15


@pytest.mark.parametrize("side", [(5, 1000), (1000, 5), (1, 1)])
def test_images_of_extreme_sizes_are_augmented(side: tuple[int, int]) -> None:
    canvas, image_sizes = pad_to_canvas([torch.full((3, *side), 77, dtype=torch.uint8)])
    for augmentation in (Augmentation(scale=(0.08, 1.0)), Augmentation(shift=True, rotation=30.0)):
        result = apply_augmentation(canvas, augmentation.sample_params(image_sizes, SIZE, 0, 0, np.array([0])), SIZE)
        assert result.shape == (1, 3, SIZE, SIZE)
        assert torch.allclose(result, torch.tensor(77.0), atol=1e-3)


def test_the_padding_of_the_canvas_never_shows() -> None:
    white = [torch.full((3, *side), 255, dtype=torch.uint8) for side in IMAGE_SIZES]
    canvas, image_sizes = pad_to_canvas(white)
    params = Augmentation(scale=(0.9, 1.0), rotation=45.0).sample_params(image_sizes, SIZE, 0, 0, POSITIONS)
    assert apply_augmentation(canvas, params, SIZE).min() > 254.9


def test_adding_a_transformation_does_not_change_the_others() -> None:
    plain, _ = augment(Augmentation(scale=(0.3, 1.0), flip=0.5))
    erased, _ = augment(Augmentation(scale=(0.3, 1.0), flip=0.5, erase=1e-9))
    assert torch.equal(plain, erased)


def test_brightness_saturation_and_contrast_keep_their_meaning() -> None:
    plain, _ = augment(Augmentation())
    luma_weights = torch.tensor(LUMA_WEIGHTS).view(1, 3, 1, 1)
    result, _ = augment(Augmentation(jitter=(0.0, 0.0, 0.5, 0.0)))
    inside = (result > 1) & (result < 254)
    luma = ((plain - result) * luma_weights).sum(1, keepdim=True).abs()
    assert luma[inside.all(1, keepdim=True)].max() < 0.05, "saturation preserves luma"
    assert not torch.allclose(plain, result, atol=2)
    result, _ = augment(Augmentation(jitter=(0.0, 0.0, 0.0, 0.3)))
    inside = ((result > 1) & (result < 254)).all(1, keepdim=True)
    assert ((plain - result) * luma_weights).sum(1, keepdim=True).abs()[inside].max() < 0.6, "hue preserves luma"
    result, _ = augment(Augmentation(jitter=(0.0, 0.9, 0.0, 0.0)))
    inside = ((result > 1) & (result < 254)).all(1)
    assert inside.any()
    assert not torch.allclose(plain, result, atol=2)


def test_erasing_fills_a_box_of_the_expected_area_with_the_mean_color() -> None:
    canvas, image_sizes = pad_to_canvas([torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(200)])
    positions = np.arange(200)
    plain = apply_augmentation(canvas, Augmentation().sample_params(image_sizes, SIZE, 0, 0, positions), SIZE)
    result = apply_augmentation(canvas, Augmentation(erase=0.5).sample_params(image_sizes, SIZE, 0, 0, positions), SIZE)
    fraction = (result != plain).any(1).float().mean((1, 2))
    assert 70 < (fraction > 0).sum() < 130
    assert fraction[fraction > 0].min() > 0.01
    assert fraction.max() < 0.35


@pytest.mark.parametrize("augmentation", [Augmentation(mixup=0.4), Augmentation(cutmix=1.0)], ids=["mixup", "cutmix"])
def test_mixing_uses_the_sampled_fraction(augmentation: Augmentation) -> None:
    canvas = torch.zeros((8, 3, 64, 64), dtype=torch.uint8)
    canvas[:4] = 200  # bright and dark images
    image_sizes = np.tile([[64, 64]], (8, 1))
    for epoch in range(6):
        params = augmentation.sample_params(image_sizes, SIZE, 0, epoch, np.arange(8))
        result = apply_augmentation(canvas, params, SIZE)
        own, other = canvas[:, 0, 0, 0].float(), canvas[params["partner"], 0, 0, 0].float()
        expected = params["share"] * own + (1 - params["share"]) * other
        assert torch.allclose(result.mean((1, 2, 3)), expected, atol=0.01)


@pytest.mark.parametrize("policy", ["rand_augment", "trivial_augment"])
def test_a_policy_depends_only_on_seed_epoch_and_image(policy: str) -> None:
    picture = make_images()[0]
    torch.manual_seed(1)
    first = [apply_policy(picture, policy, 0, epoch, 3) for epoch in range(8)]
    state = torch.get_rng_state()
    again = [apply_policy(picture, policy, 0, epoch, 3) for epoch in range(8)]
    assert torch.equal(torch.get_rng_state(), state), "the state of torch's generator is unchanged"
    assert all(torch.equal(first_image, second_image) for first_image, second_image in zip(first, again, strict=True))
    assert len({image.numpy().tobytes() for image in first}) > 2


def test_the_same_numbers_come_for_the_same_image_in_any_order_and_batch() -> None:
    forward, backward = counter_uniform(7, 3, np.arange(50), 9), counter_uniform(7, 3, np.arange(50)[::-1], 9)
    assert np.array_equal(forward, backward[::-1])
    assert np.array_equal(forward[10:12], counter_uniform(7, 3, np.array([10, 11]), 9))
    assert np.array_equal(forward[:, :4], counter_uniform(7, 3, np.arange(50), 4))


def test_random_numbers_are_uniform_and_uncorrelated_across_seeds_epochs_and_images() -> None:
    columns = [counter_uniform(seed, epoch, np.arange(20_000), 1)[:, 0] for seed in range(3) for epoch in range(8)]
    for column in columns:
        assert abs(np.histogram(column, 10, (0, 1))[0] - 2000).max() < 200
    correlations = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(correlations).max() < 0.035  # 276 pairs of 20,000 numbers: 5 standard deviations of 0.007


@pytest.mark.parametrize(
    ("augmentation", "num_samples", "expected"),
    [
        (Augmentation(), None, CachedViews("plain", 1)),
        (Augmentation(), 8, CachedViews("plain", 1)),
        (Augmentation(flip=0.5), None, CachedViews("flipped", 2)),
        (Augmentation(flip=0.5), 8, CachedViews("flipped", 2)),
        (Augmentation(flip=0.5, rotation=5.0), 8, CachedViews("sampled", 8)),
        (Augmentation(policy="rand_augment"), 1, CachedViews("sampled", 1)),
    ],
)
def test_views_are_cached_exactly_if_possible_and_else_as_samples(
    augmentation: Augmentation, num_samples: int | None, expected: CachedViews
) -> None:
    assert augmentation.plan_cached_views(num_samples) == expected


@pytest.mark.parametrize(
    ("augmentation", "num_samples", "reason"),
    [
        (Augmentation(shift=True), None, "augmentation changes images anew in every epoch; feature_cache.views=8"),
        (Augmentation(mixup=0.2), 8, "mixup and CutMix"),
        (Augmentation(flip=0.5, cutmix=1.0), 8, "mixup and CutMix"),
    ],
)
def test_views_that_cannot_be_cached_have_a_reason(
    augmentation: Augmentation, num_samples: int | None, reason: str
) -> None:
    cached_views = augmentation.plan_cached_views(num_samples)
    assert (cached_views.kind, cached_views.count) == ("none", 0)
    assert cached_views.reason.startswith(reason)
