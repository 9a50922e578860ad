"""Multiply-adds and layers, held against what torchvision publishes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from thaw.models.cost import compute_cost, compute_stage_costs, list_layers, on_meta_device
from thaw.models.network import Network, collect_stage_facts
from thaw.models.stages import split_backbone


def network(name: str, size: int) -> Network:
    model = models.get_model(name, weights=None)
    width = [one for one in model.modules() if isinstance(one, nn.Linear)][-1].in_features
    return Network(dict(split_backbone(model, size).stages), nn.Sequential(nn.Linear(width, 1000)))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16", "mobilenet_v2", "efficientnet_b0", "vit_b_16"])
def test_multiply_adds_of_the_stages_add_up_to_the_published_ones(name: str) -> None:
    meta = models.get_model_weights(name).DEFAULT.meta
    costs = on_meta_device(lambda: compute_stage_costs(network(name, 224), 224))
    assert sum(one.multiply_adds for one in costs) / 1e9 == pytest.approx(meta["_ops"], rel=0.02)
    assert sum(one.facts.num_parameters for one in costs) == meta["num_params"]


def test_a_stage_costs_what_its_convolutions_multiply() -> None:
    stem, *_, head = on_meta_device(lambda: compute_stage_costs(network("resnet18", 64), 64))
    assert stem.multiply_adds == 64 * 3 * 7 * 7 * 32 * 32
    assert head.multiply_adds == 512 * 1000
    assert (stem.num_batchnorms, head.num_batchnorms) == (1, 0)


def test_costs_and_facts_take_one_forward_pass() -> None:
    passes = list[object]()
    one = network("resnet18", 64).eval()
    one.register_forward_pre_hook(lambda *_: passes.append(one))
    assert [cost.facts for cost in compute_stage_costs(one, 64)] == collect_stage_facts(one, 64)
    assert len(passes) == 2


def test_a_classifier_is_counted_as_its_library_has_it() -> None:
    layer = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
    assert compute_cost(layer, 8) == (3 * 8 * 8 * 10 + 10, 3 * 8 * 8 * 10)
    assert layer.training


def test_a_constructor_that_computes_gets_values() -> None:
    assert on_meta_device(lambda: torch.arange(3).tolist()) == [0, 1, 2]
    assert on_meta_device(lambda: torch.zeros(2)).device.type == "meta"


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "densenet121"])
def test_the_layers_hold_every_parameter_once(name: str) -> None:
    found, total = on_meta_device(
        lambda: (list_layers(one := network(name, 224), 224), sum(p.numel() for p in one.parameters()))
    )
    assert sum(layer.num_parameters for layer in found) == total
    assert len({(layer.stage, layer.path) for layer in found}) == len(found)


def test_a_layer_has_the_librarys_path_and_its_own_output() -> None:
    found = {layer.path: layer for layer in on_meta_device(lambda: list_layers(network("resnet18", 64), 64))}
    layer = found["layer2.0.downsample.0"]
    assert (layer.stage, layer.module_type, layer.shape, layer.num_parameters) == (
        "layer2",
        "Conv2d",
        (128, 8, 8),
        64 * 128,
    )
    assert found["head.0"].shape == (1000,)


def test_parameters_outside_of_layers_are_listed_by_name() -> None:
    found = {layer.path: layer for layer in on_meta_device(lambda: list_layers(network("vit_b_16", 224), 224))}
    assert (found["class_token"].module_type, found["class_token"].num_parameters) == ("Parameter", 768)
