"""Stages, head, frontier."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torchvision import models

from thaw.models.head import build_linear_head
from thaw.models.network import Network, collect_stage_facts
from thaw.models.stages import split_backbone


def small() -> Network:
    torch.manual_seed(0)
    return Network(dict(split_backbone(models.resnet18(weights=None), 64).stages), build_linear_head(512, 3, 0.0))


def test_what_lies_before_the_frontier_gets_no_gradients_and_gives_the_same_logits() -> None:
    network, images = small().eval(), torch.randn(2, 3, 64, 64)
    whole = network(images)
    network.num_frozen_stages = 3
    cut = network(images)
    assert torch.equal(whole, cut)
    cut.sum().backward()
    assert all(
        weight.grad is None for name in ("stem", "layer1", "layer2") for weight in network.get_part(name).parameters()
    )
    assert all(
        weight.grad is not None
        for name in ("layer3", "layer4", "head")
        for weight in network.get_part(name).parameters()
    )


def test_facts_count_every_parameter_once() -> None:
    network = small()
    rows = collect_stage_facts(network, 64)
    assert [row.name for row in rows] == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert sum(row.num_parameters for row in rows) == sum(weight.numel() for weight in network.parameters())
    assert [row.shape for row in rows] == [(64, 16, 16), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512,), (3,)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [64, 0])
def test_looking_leaves_mode_statistics_and_hooks_as_they_were(training: bool, size: int) -> None:
    network = small().train(training)
    before = copy.deepcopy(network.state_dict())
    with contextlib.nullcontext() if size else pytest.raises(RuntimeError):
        collect_stage_facts(network, size)
    assert all(module.training == training and not module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_copy_shares_nothing_with_the_original() -> None:
    network = small().eval()
    twin, images = copy.deepcopy(network), torch.randn(1, 3, 64, 64)
    before = network(images)
    with torch.no_grad():
        for weight in twin.parameters():
            weight.zero_()
    assert torch.equal(network(images), before)


def test_maps_that_a_network_does_not_pool_are_pooled_before_the_head() -> None:
    torch.manual_seed(0)
    stages = split_backbone(models.squeezenet1_1(weights=None), 64).stages
    assert Network(dict(stages), build_linear_head(512, 3, 0.0)).eval()(torch.randn(2, 3, 64, 64)).shape == (2, 3)
