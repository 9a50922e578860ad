"""Grad-CAM of networks of all kinds: where they look is where what they answer to is."""

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
    # Behind a ViT's last block nothing but the class token counts.
    "vit_tiny": (lambda: timm.create_model("vit_tiny_patch16_224", img_size=64), 64, "block11", 4),
    "torchvision's swin": (lambda: models.swin_t(weights=None), 64, "block3", 4),
    "timm's swin": (lambda: timm.create_model("swin_tiny_patch4_window7_224", img_size=128), 128, "block4", 4),
}


def network_of(model: nn.Module, size: int, classes: int = 5) -> Network:
    cut = split_backbone(model.eval(), size)
    with torch.no_grad():
        width = pool(nn.Sequential(*cut.stages.values())(torch.zeros(1, 3, size, size))).shape[1]
    return Network(dict(cut.stages), nn.Linear(width, classes)).eval()


@pytest.mark.parametrize("name", NETWORKS)
def test_any_network_has_maps_from_0_to_1_and_says_what_it_says(name: str) -> None:
    torch.manual_seed(0)
    make, size, stage, side = NETWORKS[name]
    network, images = network_of(make(), size), torch.randn(2, 3, size, size)
    network.requires_grad_(False)
    found = grad_cam(network, images, top=3)
    assert (found.stage, found.maps.shape) == (stage, (2, 3, side, side))
    assert 0 <= found.maps.min() <= found.maps.max() <= 1
    with torch.no_grad():
        expected = network(images).softmax(1)
    assert torch.equal(found.probabilities, expected)
    assert torch.equal(found.targets, expected.topk(3).indices)
    assert found.maps.any()


def bright_spots() -> Network:
    """Class 0 answers to red, class 1 to green; what is negative speaks against."""
    stages = split_backbone(
        nn.Sequential(nn.Conv2d(3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2)), 8
    ).stages
    with torch.no_grad():
        layer = next(one for stage in stages.values() for one in stage.modules() if isinstance(one, nn.Conv2d))
        layer.weight.zero_()
        layer.weight[0, 0], layer.weight[1, 1] = 1.0, 1.0
        layer.bias.zero_()
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
    return Network(dict(stages), head).eval()


def test_what_speaks_for_a_class_is_where_its_colour_is() -> None:
    images = torch.zeros(1, 3, 8, 8)
    images[0, 0, 1, 2], images[0, 1, 6, 5] = 3.0, 1.0
    found = grad_cam(bright_spots(), images, torch.tensor([[0, 1]]))
    expected = torch.zeros(2, 8, 8)
    expected[0, 1, 2], expected[1, 6, 5] = 1.0, 1.0
    assert torch.equal(found.maps[0], expected)
    large = upsample_maps(found.maps, 64)[0, 0]
    assert divmod(int(large.argmax()), 64)[0] // 8 == 1


def test_a_class_that_nothing_speaks_for_has_a_map_of_zeros() -> None:
    images = torch.full((1, 3, 8, 8), -1.0)
    assert not grad_cam(bright_spots(), images, torch.tensor([[0, 1]])).maps.any()


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
def test_what_has_a_place_in_the_image(features: object, shape: tuple[int, ...] | None) -> None:
    maps = extract_feature_maps(features)
    assert (None if maps is None else tuple(maps.shape)) == shape


def test_tokens_return_to_their_place() -> None:
    grid = torch.arange(18.0).view(1, 3, 3, 2)  # height, width, channels
    tokens: Tensor = torch.cat([torch.full((1, 1, 2), -1.0), grid.flatten(1, 2)], 1)
    maps = extract_feature_maps(tokens)
    assert maps is not None
    assert torch.equal(maps, grid.permute(0, 3, 1, 2))
