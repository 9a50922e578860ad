"""A hundred heads at once are a hundred heads one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.probing.linear_heads import MOMENTUM, Grid, Setting, compute_batch_size, fit_linear_heads, train_linear_heads
from thaw.probing.trial import FeatureSet, compute_cross_entropy, fit_scaling

SETTINGS = (Setting(0.01, 0.0, 0), Setting(0.1, 0.01, 1), Setting(0.5, 0.3, 0))
CPU = torch.device("cpu")


def clusters(count: int, width: int, classes: int) -> FeatureSet:
    dice = np.random.default_rng(0)
    labels = np.arange(count) % classes
    centres = dice.normal(size=(classes, width))
    return FeatureSet((centres[labels] + dice.normal(size=(count, width))).astype(np.float32), labels)


def by_autograd(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, one: Setting, steps: int) -> Tensor:
    """Logits of `features` after full-batch training by torch's own SGD and autograd."""
    weight, bias = weight.clone().requires_grad_(), bias.clone().requires_grad_()
    groups = [{"params": [weight], "weight_decay": one.weight_decay}, {"params": [bias], "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=one.learning_rate, momentum=MOMENTUM)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = one.learning_rate * 0.5 * (1 + math.cos(math.pi * step / steps))
        optimizer.zero_grad()
        F.cross_entropy(features @ weight.T + bias, labels).backward()
        optimizer.step()
    return (features @ weight.T + bias).detach()


@pytest.mark.parametrize("classes", [2, 4])
def test_every_head_ends_where_autograd_and_torchs_sgd_end_on_features_of_full_width(classes: int) -> None:
    data = clusters(20, 50, classes)
    scaling, whole = fit_scaling(data.features), fit_scaling(data.features, with_axes=False)
    seen, wide = (torch.from_numpy(one.transform(data.features)) for one in (scaling, whole))
    labels = torch.from_numpy(data.labels)
    starts = train_linear_heads(seen, labels, classes, SETTINGS, 0, 20, 0, 50).values
    heads = train_linear_heads(seen, labels, classes, SETTINGS, 30, 20, 0, 50)
    assert scaling.axes is not None
    axes = torch.from_numpy(scaling.axes)
    for place, one in enumerate(SETTINGS):
        weight, bias = (axes @ starts[:-1, :, place]).T, starts[-1, :, place]
        expected = by_autograd(wide, labels, weight, bias, one, 30)
        assert torch.allclose(heads.compute_logits(seen)[:, :, place], expected, atol=2e-4)


def test_a_head_does_not_know_of_the_others() -> None:
    data = clusters(33, 8, 3)
    features, labels = torch.from_numpy(data.features), torch.from_numpy(data.labels)
    together = train_linear_heads(features, labels, 3, SETTINGS, 5, 7, 0, 8).values
    for place, one in enumerate(SETTINGS):
        alone = train_linear_heads(features, labels, 3, [one], 5, 7, 0, 8).values
        assert torch.allclose(together[:, :, [place]], alone, atol=1e-5)


def test_the_start_is_that_of_a_layer_as_wide_as_the_features_and_follows_from_the_seed() -> None:
    features, labels = torch.randn(40, 400, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 20
    settings = (Setting(0.1, 0.0, 0), Setting(0.2, 0.0, 0), Setting(0.1, 0.0, 1))
    first, alike, other = train_linear_heads(features, labels, 20, settings, 0, 16, 0, 1200).values.unbind(2)
    assert torch.equal(first, alike)
    assert not torch.equal(first, other)
    assert first[:-1].std().item() == pytest.approx(1 / math.sqrt(3 * 1200), rel=0.05)
    assert first[-1].abs().max() == 0


def test_the_order_of_the_images_follows_from_the_seed() -> None:
    data = clusters(40, 8, 2)
    features, labels = torch.from_numpy(data.features), torch.from_numpy(data.labels)
    one, again, other = (train_linear_heads(features, labels, 2, SETTINGS, 2, 4, seed, 8).values for seed in (0, 0, 1))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)


def test_trials_are_judged_on_validation_images_alone() -> None:
    data = clusters(90, 8, 3)
    train, val = FeatureSet(data.features[:60], data.labels[:60]), FeatureSet(data.features[60:], data.labels[60:])
    grid = Grid(learning_rates=(0.01, 0.1), weight_decays=(0.0, 0.1), seeds=2, epochs=4)
    trials = fit_linear_heads(train, val, 3, grid, 0, 8, CPU)
    assert len(trials) == 8
    assert [one.setting["weight decay"] for one in trials[:4]] == [0.1, 0.1, 0.0, 0.0]
    for one in trials:
        assert one.linear is not None
        logits = one.linear.compute_logits(val.features)
        assert one.accuracy == pytest.approx((logits.argmax(1) == val.labels).mean())
        assert one.loss == pytest.approx(compute_cross_entropy(logits, val.labels), rel=1e-4)
    assert max(one.accuracy for one in trials) > 0.6


def test_the_grid_of_the_probe_has_a_hundred_heads_and_more() -> None:
    assert len(set(Grid().list_settings())) == len(Grid().list_settings()) >= 100


@pytest.mark.parametrize(("count", "size"), [(3, 16), (195, 16), (1800, 150), (45000, 256)])
def test_batches_leave_an_epoch_some_steps(count: int, size: int) -> None:
    assert compute_batch_size(count) == size
