"""Multiply-adds and layers, compared with the figures that torchvision publishes."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torchvision import models

from thaw.models.cost import compute_cost, compute_stage_costs, list_layers, on_meta_device
from thaw.models.network import Network, collect_stage_facts
from thaw.models.stages import split_backbone


def build_network(name: str, size: int) -> Network:
    model = models.get_model(name, weights=None)
    width = [layer for layer in model.modules() if isinstance(layer, nn.Linear)][-1].in_features
    return Network(dict(split_backbone(model, size).stages), nn.Sequential(nn.Linear(width, 1000)))


@pytest.mark.parametrize("name", ["resnet18", "resnet50", "vgg16", "mobilenet_v2", "efficientnet_b0", "vit_b_16"])
def test_multiply_adds_of_the_stages_add_up_to_the_published_figure(name: str) -> None:
    meta = models.get_model_weights(name).DEFAULT.meta
    costs = on_meta_device(lambda: compute_stage_costs(build_network(name, 224), 224))
    assert sum(cost.multiply_adds for cost in costs) / 1e9 == pytest.approx(meta["_ops"], rel=0.02)
    assert sum(cost.facts.num_parameters for cost in costs) == meta["num_params"]


def test_the_cost_of_a_stage_is_that_of_its_convolutions() -> None:
    stem, *_, head = on_meta_device(lambda: compute_stage_costs(build_network("resnet18", 64), 64))
    assert stem.multiply_adds == 64 * 3 * 7 * 7 * 32 * 32
    assert head.multiply_adds == 512 * 1000
    assert (stem.num_batchnorms, head.num_batchnorms) == (1, 0)


def test_costs_and_facts_take_one_forward_pass_each() -> None:
    passes = list[object]()
    resnet = build_network("resnet18", 64).eval()
    resnet.register_forward_pre_hook(lambda *_: passes.append(resnet))
    assert [cost.facts for cost in compute_stage_costs(resnet, 64)] == collect_stage_facts(resnet, 64)
    assert len(passes) == 2


def test_the_cost_of_a_librarys_classifier_includes_its_last_layer() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
    assert compute_cost(model, 8) == (3 * 8 * 8 * 10 + 10, 3 * 8 * 8 * 10)
    assert model.training


def test_a_constructor_that_computes_with_tensors_runs_with_values() -> None:
    assert on_meta_device(lambda: torch.arange(3).tolist()) == [0, 1, 2]
    assert on_meta_device(lambda: torch.zeros(2)).device.type == "meta"


@pytest.mark.parametrize("name", ["resnet18", "vit_b_16", "densenet121"])
def test_layers_contain_every_parameter_once(name: str) -> None:
    model = on_meta_device(lambda: build_network(name, 224))
    layers = list_layers(model, 224)
    assert sum(layer.num_parameters for layer in layers) == sum(weight.numel() for weight in model.parameters())
    assert len({(layer.stage, layer.path) for layer in layers}) == len(layers)


def test_a_layer_has_the_librarys_path_and_the_shape_of_its_output() -> None:
    layers = {layer.path: layer for layer in on_meta_device(lambda: list_layers(build_network("resnet18", 64), 64))}
    layer = layers["layer2.0.downsample.0"]
    assert (layer.stage, layer.module_type, layer.shape, layer.num_parameters) == (
        "layer2",
        "Conv2d",
        (128, 8, 8),
        64 * 128,
    )
    assert layers["head.0"].shape == (1000,)


def test_parameters_outside_layers_are_listed_by_name() -> None:
    layers = {layer.path: layer for layer in on_meta_device(lambda: list_layers(build_network("vit_b_16", 224), 224))}
    assert (layers["class_token"].module_type, layers["class_token"].num_parameters) == ("Parameter", 768)
