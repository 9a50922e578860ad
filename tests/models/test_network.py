"""Networks: frozen stages, facts about stages, normalization of pixels."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torchvision import models

from thaw.data.preprocessing import Preprocessing
from thaw.models.head import build_linear_head
from thaw.models.network import Network, Normalize, PixelNetwork, collect_stage_facts, pool
from thaw.models.precision import NetworkPrecision
from thaw.models.stages import split_backbone


def build_small_network() -> Network:
    torch.manual_seed(0)
    return Network(dict(split_backbone(models.resnet18(weights=None), 64).stages), build_linear_head(512, 3, 0.0))


def test_frozen_stages_get_no_gradients_and_give_the_same_logits() -> None:
    network, images = build_small_network().eval(), torch.randn(2, 3, 64, 64)
    expected = network(images)
    network.num_frozen_stages = 3
    logits = network(images)
    assert torch.equal(logits, expected)
    logits.sum().backward()
    assert all(
        weight.grad is None for name in ("stem", "layer1", "layer2") for weight in network.get_part(name).parameters()
    )
    assert all(
        weight.grad is not None
        for name in ("layer3", "layer4", "head")
        for weight in network.get_part(name).parameters()
    )


@pytest.mark.parametrize("num_frozen_stages", [2, 5])
def test_frozen_stages_compute_at_their_precision_and_the_others_in_float32(num_frozen_stages: int) -> None:
    network, images = build_small_network().eval(), torch.randn(2, 3, 64, 64)
    stages = list(network.stages.values())
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        features = images
        for stage in stages[:num_frozen_stages]:
            features = stage(features)
    assert features.dtype == torch.bfloat16
    pooled_features = pool(features) if num_frozen_stages == len(stages) else features
    expected = pooled_features.float()
    for stage in stages[num_frozen_stages:]:
        expected = stage(expected)
    network.precision = NetworkPrecision("32-true", "bf16-mixed", num_frozen_stages)
    network.num_frozen_stages = num_frozen_stages
    assert torch.equal(network.forward_stages(images, 0, num_frozen_stages), features)
    logits = network(images)
    assert torch.equal(logits, network.head(pool(expected)))
    assert torch.equal(network.forward_from(pooled_features, num_frozen_stages), logits)
    logits.sum().backward()
    assert {parameter.grad.dtype for parameter in network.head.parameters() if parameter.grad is not None} == {
        torch.float32
    }


def test_float32_stages_before_stages_in_bf16_ignore_the_autocast_of_these() -> None:
    network, images = build_small_network().eval(), torch.randn(2, 3, 64, 64)
    expected = network.forward_stages(images, 0, 2)
    network.precision = NetworkPrecision("bf16-mixed", "32-true", 2)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network.forward_stages(images, 0, 2), expected)
        assert network.forward_stages(images, 0, 3).dtype == torch.bfloat16


def test_facts_count_every_parameter_once() -> None:
    network = build_small_network()
    facts = collect_stage_facts(network, 64)
    assert [stage.name for stage in facts] == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert sum(stage.num_parameters for stage in facts) == sum(weight.numel() for weight in network.parameters())
    assert [stage.shape for stage in facts] == [(64, 16, 16), (64, 16, 16), (128, 8, 8), (256, 4, 4), (512,), (3,)]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("size", [64, 0])
def test_collecting_facts_keeps_mode_statistics_and_hooks(training: bool, size: int) -> None:
    network = build_small_network().train(training)
    before = copy.deepcopy(network.state_dict())
    with contextlib.nullcontext() if size else pytest.raises(RuntimeError):
        collect_stage_facts(network, size)
    assert all(module.training == training and not module._forward_hooks for module in network.modules())
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_a_copy_shares_no_weights_with_the_original() -> None:
    network = build_small_network().eval()
    network_copy, images = copy.deepcopy(network), torch.randn(1, 3, 64, 64)
    expected = network(images)
    with torch.no_grad():
        for weight in network_copy.parameters():
            weight.zero_()
    assert torch.equal(network(images), expected)


def test_maps_that_the_library_pools_after_its_classifier_are_pooled_before_the_head() -> None:
    torch.manual_seed(0)
    stages = split_backbone(models.squeezenet1_1(weights=None), 64).stages
    assert Network(dict(stages), build_linear_head(512, 3, 0.0)).eval()(torch.randn(2, 3, 64, 64)).shape == (2, 3)


PREPROCESSING = Preprocessing(64, 64, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_pixels_are_normalized_and_run_through_the_network(memory_format: torch.memory_format) -> None:
    network = build_small_network().eval().to(memory_format=memory_format)
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (PREPROCESSING.mean, PREPROCESSING.std))
    inputs = ((pixels.float() - mean) / std).contiguous(memory_format=memory_format)
    model = PixelNetwork(network, PREPROCESSING, memory_format)
    with torch.no_grad():
        assert torch.equal(model(pixels), network(inputs))
        assert torch.equal(model(pixels.float()), network(inputs))
        assert torch.equal(model.forward_stages(pixels, 2), network.forward_stages(inputs, 0, 2))
    assert model.normalize(pixels).is_contiguous(memory_format=memory_format)
    assert torch.equal(model.normalize.invert(inputs).round().byte(), pixels)


def test_pixels_are_normalized_in_the_dtype_of_the_network() -> None:
    network = build_small_network().double()
    normalize = PixelNetwork(network, PREPROCESSING).normalize
    assert normalize(torch.zeros(1, 3, 64, 64, dtype=torch.uint8)).dtype == torch.float64


def test_normalization_constants_are_not_in_the_state_dict() -> None:
    assert not Normalize(PREPROCESSING).state_dict()
