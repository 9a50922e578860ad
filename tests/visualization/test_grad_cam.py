"""Grad-CAM of networks of all kinds: maps mark the regions that the logits depend on."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision import models

from thaw.models.network import Network, pool
from thaw.models.stages import split_backbone
from thaw.visualization.interpret.activations import extract_feature_maps
from thaw.visualization.interpret.grad_cam import grad_cam, upsample_maps

NETWORKS = {
    "resnet18": (lambda: models.resnet18(weights=None), 64, "layer3", 4),
    "tf_efficientnet_lite0": (lambda: timm.create_model("tf_efficientnet_lite0"), 96, "block5", 6),
    # After a ViT's last block only the class token counts.
    "vit_tiny": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=64), 64, "block11", 4),
    "torchvision's swin": (lambda: models.swin_t(weights=None), 64, "block3", 4),
    "timm's swin": (lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=128), 128, "block4", 4),
}


def build_network(model: nn.Module, size: int, num_classes: int = 5) -> Network:
    split = split_backbone(model.eval(), size)
    with torch.no_grad():
        width = pool(nn.Sequential(*split.stages.values())(torch.zeros(1, 3, size, size))).shape[1]
    return Network(dict(split.stages), nn.Linear(width, num_classes)).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_has_maps_from_0_to_1_and_unchanged_probabilities(name: str) -> None:
    torch.manual_seed(0)
    build_model, size, stage, side = NETWORKS[name]
    network, images = build_network(build_model(), size), torch.randn(2, 3, size, size)
    network.requires_grad_(False)
    result = grad_cam(network, images, top=3)
    assert (result.stage, result.maps.shape) == (stage, (2, 3, side, side))
    assert 0 <= result.maps.min() <= result.maps.max() <= 1
    with torch.no_grad():
        expected = network(images).softmax(1)
    assert torch.equal(result.probabilities, expected)
    assert torch.equal(result.targets, expected.topk(3).indices)
    assert result.maps.any()


def build_color_detector() -> Network:
    """Class 0 responds to red, class 1 to green; negative values are evidence against a class."""
    stages = split_backbone(
        nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)), 8
    ).stages
    with torch.no_grad():
        layer = next(module for stage in stages.values() for module in stage.modules() if isinstance(module, nn.Conv2d))
        layer.weight.zero_()
        layer.weight[0, 0], layer.weight[1, 1] = 1.0, 1.0
        layer.bias.zero_()
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
    return Network(dict(stages), head).eval()


def test_the_map_of_a_class_marks_the_position_of_its_color() -> None:
    images = torch.zeros(1, 3, 8, 8)
    images[0, 0, 1, 2], images[0, 1, 6, 5] = 3.0, 1.0
    result = grad_cam(build_color_detector(), images, torch.tensor([[0, 1]]))
    expected = torch.zeros(2, 8, 8)
    expected[0, 1, 2], expected[1, 6, 5] = 1.0, 1.0
    assert torch.equal(result.maps[0], expected)
    upsampled = upsample_maps(result.maps, 64)[0, 0]
    assert divmod(int(upsampled.argmax()), 64)[0] // 8 == 1


def test_a_class_without_evidence_has_a_map_of_zeros() -> None:
    images = torch.full((1, 3, 8, 8), -1.0)
    assert not grad_cam(build_color_detector(), images, torch.tensor([[0, 1]])).maps.any()


@pytest.mark.parametrize(
    ("features", "shape"),
    [
        (torch.zeros(2, 5, 7, 7), (2, 5, 7, 7)),
        (torch.zeros(2, 7, 7, 5), (2, 5, 7, 7)),
        (torch.zeros(2, 50, 5), (2, 5, 7, 7)),  # a class token, then 7 x 7
        (torch.zeros(2, 54, 5), (2, 5, 7, 7)),  # and four registers
        (torch.zeros(2, 5), None),
        ("no tensor", None),
    ],
)
def test_feature_maps_of_maps_and_tokens(features: object, shape: tuple[int, ...] | None) -> None:
    maps = extract_feature_maps(features)
    assert (None if maps is None else tuple(maps.shape)) == shape


def test_tokens_return_to_their_positions() -> None:
    grid = torch.arange(18.0).view(1, 3, 3, 2)  # height, width, channels
    tokens: Tensor = torch.cat([torch.full((1, 1, 2), -1.0), grid.flatten(1, 2)], 1)
    maps = extract_feature_maps(tokens)
    assert maps is not None
    assert torch.equal(maps, grid.permute(0, 3, 1, 2))
