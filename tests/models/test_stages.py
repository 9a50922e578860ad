"""Any classifier cut into stages computes what it computed whole."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from thaw.config.errors import UserError
from thaw.models.stages import split_backbone

FAMILIES = {
    "resnet18": ["stem", "layer1", "layer2", "layer3", "layer4"],
    "vgg11": ["block1", "block2", "block3", "block4", "block5", "classifier"],
    "mobilenet_v2": ["block1", "block2", "block3", "block4", "block5"],
    "efficientnet_b0": ["stem", *(f"block{number}" for number in range(1, 8)), "final"],
    "densenet121": ["stem", "denseblock1", "denseblock2", "denseblock3", "denseblock4"],
    "convnext_tiny": ["stem", "block1", "block2", "block3", "block4", "classifier"],
    "swin_t": ["stem", "block1", "block2", "block3", "block4", "norm"],
    "regnet_y_400mf": ["stem", "block1", "block2", "block3", "block4"],
    "squeezenet1_1": ["stem", "block1", "block2", "block3"],
    "shufflenet_v2_x0_5": ["stem", "stage2", "stage3", "stage4", "conv5"],
}
OF_TIMM = {
    "tf_efficientnet_lite0": ["stem", *(f"block{number}" for number in range(1, 8)), "conv_head"],
    "vit_tiny_patch16_224": ["stem", *(f"block{number}" for number in range(1, 13)), "norm"],
    "resnet18": ["stem", "layer1", "layer2", "layer3", "layer4"],
}


def classifier_input(model: nn.Module, path: str, images: torch.Tensor) -> torch.Tensor:
    """What the whole model hands to its last layer."""
    seen: list[torch.Tensor] = []
    hook = model.get_submodule(path).register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    model(images)
    hook.remove()
    return seen[0]


def check(model: nn.Module, names: list[str], size: int = 224) -> None:
    model.eval()
    cut = split_backbone(model, size)
    assert list(cut.stages) == names
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        features = images
        for stage in cut.stages.values():
            features = stage(features)
        assert torch.equal(features, classifier_input(model, cut.classifier_path, images))
    placed = [id(weight) for stage in cut.stages.values() for weight in stage.parameters()]
    last = [id(weight) for weight in model.get_submodule(cut.classifier_path).parameters()]
    assert len(placed) == len(set(placed)), "a parameter is in two stages"
    assert {id(weight) for weight in model.parameters()} == set(placed) | set(last)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_torchvision_family_is_cut_into_readable_stages_that_equal_the_whole(name: str) -> None:
    torch.manual_seed(0)
    check(models.get_model(name, weights=None), FAMILIES[name])


@pytest.mark.parametrize("name", OF_TIMM)
def test_a_timm_family_is_cut_into_readable_stages_that_equal_the_whole(name: str) -> None:
    torch.manual_seed(0)
    check(timm.create_model(name), OF_TIMM[name])


def test_parameters_keep_the_paths_they_had() -> None:
    model = models.resnet18(weights=None)
    stages = split_backbone(model, 64).stages
    paths = {name for stage in stages.values() for name, _ in stage.named_parameters()}
    assert paths | {"fc.weight", "fc.bias"} == {name for name, _ in model.named_parameters()}


def test_the_mode_of_the_model_is_left_as_it_was() -> None:
    model = models.resnet18(weights=None).train()
    split_backbone(model, 64)
    assert all(module.training for module in model.modules())


def test_a_size_that_the_network_does_not_take_is_told_with_the_fix() -> None:
    with pytest.raises(UserError, match=r"does not take images of 96 pixels(.|\n)*dataset.image_size=null"):
        split_backbone(models.vit_b_32(weights=None), 96)


def test_a_forward_pass_that_cannot_be_traced_is_told() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 2)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            pooled = images.mean((2, 3))
            logits: torch.Tensor = self.layer(pooled if pooled.sum() > 0 else -pooled)
            return logits

    with pytest.raises(UserError, match="Branching cannot be traced"):
        split_backbone(Branching(), 32)
