"""What augmentation draws, and what it does to a batch, held against torchvision image by image."""

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
    _compute_crop_boxes,
    apply_policy,
    counter_uniform,
)
from thaw.data.batches import pad_to_canvas
from thaw.data.transforms import LUMA_WEIGHTS, apply_augmentation

SIDES = [(64, 90), (80, 64), (64, 64), (64, 120)]
SIZE = 56
POSITIONS = np.arange(len(SIDES))


def pictures() -> list[Tensor]:
    """Smooth uint8 images: neighbours alike, so that half a pixel of difference stays a small one."""
    dice = torch.Generator().manual_seed(0)
    coarse = [torch.rand(1, 3, 6, 6, generator=dice) * 255 for _ in SIDES]
    return [F.resize(one[0], list(side)).to(torch.uint8) for one, side in zip(coarse, SIDES, strict=True)]


def augmented(augmentation: Augmentation, epoch: int = 1, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """The changed batch, and the numbers it was drawn from."""
    canvas, sides = pad_to_canvas(pictures())
    drawn = augmentation.sample_params(sides, SIZE, seed, epoch, POSITIONS)
    return apply_augmentation(canvas, drawn, SIZE), counter_uniform(seed, epoch, POSITIONS, NUM_COLUMNS)


def test_nothing_drawn_is_the_centre_crop() -> None:
    result, _ = augmented(Augmentation())
    for ours, picture in zip(result, pictures(), strict=True):
        assert torch.allclose(ours, F.center_crop(picture, [SIZE, SIZE]).float(), atol=1e-3)


def test_crop_and_mirror_image_are_torchvision_s() -> None:
    scale, ratio = (0.2, 1.0), (3 / 4, 4 / 3)
    result, dice = augmented(Augmentation(scale=scale, ratio=ratio, flip=0.5))
    boxes = _compute_crop_boxes(np.array(SIDES), scale, ratio, dice).astype(int)
    assert len({bool(one) for one in dice[:, FLIP] < 0.5}) == 2, "one of each kind"
    for ours, picture, box, chance in zip(result, pictures(), boxes, dice[:, FLIP], strict=True):
        theirs = F.resized_crop(picture.float(), *map(int, box), [SIZE, SIZE], antialias=False)
        theirs = F.horizontal_flip(theirs) if chance < 0.5 else theirs
        # torchvision's crop ends at its box, ours sees the neighbours beyond: only the outermost pixels can tell.
        assert (ours - theirs)[:, 1:-1, 1:-1].abs().max() < 0.5


def test_rotation_is_torchvision_s() -> None:
    result, dice = augmented(Augmentation(rotation=20.0))
    for ours, picture, chance in zip(result, pictures(), dice[:, ANGLE], strict=True):
        turned = F.rotate(picture.float(), (2 * chance - 1) * 20, interpolation=F.InterpolationMode.BILINEAR)
        theirs = F.center_crop(turned, [SIZE, SIZE])
        inner = slice(14, 42)  # torchvision blackens the corners, where our edges go on
        assert (ours - theirs)[:, inner, inner].abs().mean() < 0.5


def test_boxes_lie_inside_and_keep_to_scale_and_ratio() -> None:
    sides = np.tile([[200, 300]], (5000, 1))
    dice = counter_uniform(3, 0, np.arange(5000), NUM_COLUMNS)
    top, left, height, width = _compute_crop_boxes(sides, (0.1, 0.6), (3 / 4, 4 / 3), dice).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + height <= 200).all()
    assert (left + width <= 300).all()
    share = height * width / (200 * 300)
    assert 0.095 < share.min() < 0.12
    assert 0.57 < share.max() < 0.62
    assert (width / height).min() > 0.73
    assert (width / height).max() < 1.36
    assert left.std() > 20
    assert top.std() > 15


@pytest.mark.parametrize("side", [(5, 1000), (1000, 5), (1, 1)])
def test_images_of_absurd_sides_come_out_whole(side: tuple[int, int]) -> None:
    canvas, sides = pad_to_canvas([torch.full((3, *side), 77, dtype=torch.uint8)])
    for augmentation in (Augmentation(scale=(0.08, 1.0)), Augmentation(shift=True, rotation=30.0)):
        result = apply_augmentation(canvas, augmentation.sample_params(sides, SIZE, 0, 0, np.array([0])), SIZE)
        assert result.shape == (1, 3, SIZE, SIZE)
        assert torch.allclose(result, torch.tensor(77.0), atol=1e-3)


def test_the_canvas_beside_an_image_is_never_seen() -> None:
    white = [torch.full((3, *side), 255, dtype=torch.uint8) for side in SIDES]
    canvas, sides = pad_to_canvas(white)
    drawn = Augmentation(scale=(0.9, 1.0), rotation=45.0).sample_params(sides, SIZE, 0, 0, POSITIONS)
    assert apply_augmentation(canvas, drawn, SIZE).min() > 254.9


def test_what_is_not_asked_for_does_not_change_what_is() -> None:
    plain, _ = augmented(Augmentation(scale=(0.3, 1.0), flip=0.5))
    erased, _ = augmented(Augmentation(scale=(0.3, 1.0), flip=0.5, erase=1e-9))
    assert torch.equal(plain, erased)


def test_brightness_saturation_and_contrast_keep_their_meaning() -> None:
    plain, _ = augmented(Augmentation())
    grey = torch.tensor(LUMA_WEIGHTS).view(1, 3, 1, 1)
    result, _ = augmented(Augmentation(jitter=(0.0, 0.0, 0.5, 0.0)))
    inside = (result > 1) & (result < 254)
    luma = ((plain - result) * grey).sum(1, keepdim=True).abs()
    assert luma[inside.all(1, keepdim=True)].max() < 0.05, "saturation keeps the luma"
    assert not torch.allclose(plain, result, atol=2)
    result, _ = augmented(Augmentation(jitter=(0.0, 0.0, 0.0, 0.3)))
    inside = ((result > 1) & (result < 254)).all(1, keepdim=True)
    assert ((plain - result) * grey).sum(1, keepdim=True).abs()[inside].max() < 0.6, "so does hue"
    result, _ = augmented(Augmentation(jitter=(0.0, 0.9, 0.0, 0.0)))
    inside = ((result > 1) & (result < 254)).all(1)
    assert inside.any()
    assert not torch.allclose(plain, result, atol=2)


def test_erasing_blanks_a_box_of_the_stated_share_with_the_mean_colour() -> None:
    canvas, sides = pad_to_canvas([torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8) for _ in range(200)])
    positions = np.arange(200)
    plain = apply_augmentation(canvas, Augmentation().sample_params(sides, SIZE, 0, 0, positions), SIZE)
    result = apply_augmentation(canvas, Augmentation(erase=0.5).sample_params(sides, SIZE, 0, 0, positions), SIZE)
    share = (result != plain).any(1).float().mean((1, 2))
    assert 70 < (share > 0).sum() < 130
    assert share[share > 0].min() > 0.01
    assert share.max() < 0.35


@pytest.mark.parametrize("augmentation", [Augmentation(mixup=0.4), Augmentation(cutmix=1.0)], ids=["mixup", "cutmix"])
def test_mixing_keeps_the_share_it_states(augmentation: Augmentation) -> None:
    canvas = torch.zeros((8, 3, 64, 64), dtype=torch.uint8)
    canvas[:4] = 200  # bright and dark images
    sides = np.tile([[64, 64]], (8, 1))
    for epoch in range(6):
        drawn = augmentation.sample_params(sides, SIZE, 0, epoch, np.arange(8))
        result = apply_augmentation(canvas, drawn, SIZE)
        own, other = canvas[:, 0, 0, 0].float(), canvas[drawn["partner"], 0, 0, 0].float()
        expected = drawn["share"] * own + (1 - drawn["share"]) * other
        assert torch.allclose(result.mean((1, 2, 3)), expected, atol=0.01)


@pytest.mark.parametrize("policy", ["rand_augment", "trivial_augment"])
def test_a_policy_is_decided_by_seed_epoch_and_image_alone(policy: str) -> None:
    picture = pictures()[0]
    torch.manual_seed(1)
    first = [apply_policy(picture, policy, 0, epoch, 3) for epoch in range(8)]
    state = torch.get_rng_state()
    again = [apply_policy(picture, policy, 0, epoch, 3) for epoch in range(8)]
    assert torch.equal(torch.get_rng_state(), state), "torch's own chance is left as it was"
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    assert len({one.numpy().tobytes() for one in first}) > 2


def test_the_same_numbers_come_for_the_same_image_in_any_order_and_batch() -> None:
    forward, backward = counter_uniform(7, 3, np.arange(50), 9), counter_uniform(7, 3, np.arange(50)[::-1], 9)
    assert np.array_equal(forward, backward[::-1])
    assert np.array_equal(forward[10:12], counter_uniform(7, 3, np.array([10, 11]), 9))
    assert np.array_equal(forward[:, :4], counter_uniform(7, 3, np.arange(50), 4))


def test_the_numbers_are_uniform_and_unrelated_across_seeds_epochs_and_images() -> None:
    columns = [counter_uniform(seed, epoch, np.arange(20_000), 1)[:, 0] for seed in range(3) for epoch in range(8)]
    for column in columns:
        assert abs(np.histogram(column, 10, (0, 1))[0] - 2000).max() < 200
    related = np.corrcoef(columns) - np.eye(len(columns))
    assert np.abs(related).max() < 0.035  # 276 pairs of 20,000: 0.007 is one deviation, 5 are allowed
