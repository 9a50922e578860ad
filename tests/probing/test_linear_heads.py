"""Hundreds of heads trained at once equal heads trained one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.probing.linear_heads import (
    MOMENTUM,
    HeadGrid,
    HeadTraining,
    Setting,
    compute_batch_size,
    fit_linear_heads,
    train_linear_heads,
)
from thaw.probing.trial import FeatureSet, ProbeData, compute_cross_entropy, fit_scaling

SETTINGS = (Setting(0.01, 0.0, 0), Setting(0.1, 0.01, 1), Setting(0.5, 0.3, 0))
CPU = torch.device("cpu")


def build_clusters(num_images: int, width: int, num_classes: int) -> FeatureSet:
    """Build features that are normal around the center of each class."""
    rng = np.random.default_rng(0)
    labels = np.arange(num_images) % num_classes
    centers = rng.normal(size=(num_classes, width))
    return FeatureSet((centers[labels] + rng.normal(size=(num_images, width))).astype(np.float32), labels)


def build_tensors(num_images: int, width: int, num_classes: int) -> tuple[Tensor, Tensor]:
    clusters = build_clusters(num_images, width, num_classes)
    return torch.from_numpy(clusters.features), torch.from_numpy(clusters.labels)


def train_by_autograd(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, setting: Setting, num_steps: int
) -> Tensor:
    """Return the logits of `features` after full-batch training by torch's own SGD and autograd."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    groups = [{"params": [weight], "weight_decay": setting.weight_decay}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=setting.learning_rate, momentum=MOMENTUM)
    for step in range(num_steps):
        for group in optimizer.param_groups:
            group["lr"] = setting.learning_rate * 0.5 * (1 + math.cos(math.pi * step / num_steps))
        optimizer.zero_grad()
        F.cross_entropy(features @ weight.T + bias, labels).backward()
        optimizer.step()
    return (features @ weight.T + bias).detach()


@pytest.mark.parametrize("num_classes", [2, 4])
def test_each_head_equals_one_trained_by_autograd_on_features_of_full_width(num_classes: int) -> None:
    clusters = build_clusters(20, 50, num_classes)
    scaling = fit_scaling(clusters.features)
    rotated = torch.from_numpy(scaling.transform(clusters.features))
    full_width = torch.from_numpy(fit_scaling(clusters.features, with_axes=False).transform(clusters.features))
    labels = torch.from_numpy(clusters.labels)
    initial_values = train_linear_heads(rotated, labels, num_classes, SETTINGS, HeadTraining(0, 20, 0, 50)).values
    heads = train_linear_heads(rotated, labels, num_classes, SETTINGS, HeadTraining(30, 20, 0, 50))
    assert scaling.axes is not None
    axes = torch.from_numpy(scaling.axes)
    for index, setting in enumerate(SETTINGS):
        weight, bias = (axes @ initial_values[:-1, :, index]).T, initial_values[-1, :, index]
        expected = train_by_autograd(full_width, labels, weight, bias, setting, 30)
        assert torch.allclose(heads.compute_logits(rotated)[:, :, index], expected, atol=2e-4)


def test_a_head_does_not_depend_on_the_others() -> None:
    features, labels = build_tensors(33, 8, 3)
    training = HeadTraining(5, 7, 0, 8)
    values = train_linear_heads(features, labels, 3, SETTINGS, training).values
    for index, setting in enumerate(SETTINGS):
        expected = train_linear_heads(features, labels, 3, [setting], training).values
        assert torch.allclose(values[:, :, [index]], expected, atol=1e-5)


def test_initial_weights_follow_from_the_seed_and_scale_with_the_width_of_the_features() -> None:
    features, labels = torch.randn(40, 400, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 20
    settings = (Setting(0.1, 0.0, 0), Setting(0.2, 0.0, 0), Setting(0.1, 0.0, 1))
    heads = train_linear_heads(features, labels, 20, settings, HeadTraining(0, 16, 0, 1200))
    first, same_seed, other_seed = heads.values.unbind(2)
    assert torch.equal(first, same_seed)
    assert not torch.equal(first, other_seed)
    assert first[:-1].std().item() == pytest.approx(1 / math.sqrt(3 * 1200), rel=0.05)
    assert first[-1].abs().max() == 0


def test_the_order_of_the_images_follows_from_the_seed() -> None:
    features, labels = build_tensors(40, 8, 2)
    first, same_seed, other_seed = (
        train_linear_heads(features, labels, 2, SETTINGS, HeadTraining(2, 4, seed, 8)).values for seed in (0, 0, 1)
    )
    assert torch.equal(first, same_seed)
    assert not torch.equal(first, other_seed)


def test_trials_are_evaluated_on_validation_images_only() -> None:
    clusters = build_clusters(90, 8, 3)
    train, val = (FeatureSet(clusters.features[part], clusters.labels[part]) for part in (slice(60), slice(60, None)))
    grid = HeadGrid(learning_rates=(0.01, 0.1), weight_decays=(0.0, 0.1), seeds=2, epochs=4)
    trials = fit_linear_heads(ProbeData(train, val, 3), grid, 0, 8, CPU)
    assert len(trials) == 8
    assert [trial.setting["weight decay"] for trial in trials[:4]] == [0.1, 0.1, 0.0, 0.0]
    for trial in trials:
        assert trial.linear is not None
        logits = trial.linear.compute_logits(val.features)
        assert trial.accuracy == pytest.approx((logits.argmax(1) == val.labels).mean())
        assert trial.loss == pytest.approx(compute_cross_entropy(logits, val.labels), rel=1e-4)
    assert max(trial.accuracy for trial in trials) > 0.6


def test_the_default_grid_has_more_than_a_hundred_different_heads() -> None:
    assert len(set(HeadGrid().list_settings())) == len(HeadGrid().list_settings()) >= 100


@pytest.mark.parametrize(("num_images", "batch_size"), [(3, 16), (195, 16), (1800, 150), (45000, 256)])
def test_the_batch_size_gives_an_epoch_some_steps(num_images: int, batch_size: int) -> None:
    assert compute_batch_size(num_images) == batch_size
