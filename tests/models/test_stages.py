"""Stages of any classifier give the same features as the whole network."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn
from torchvision import models

from thaw.config.errors import UserError
from thaw.models.stages import split_backbone

TORCHVISION_STAGES = {
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
TIMM_STAGES = {
    "tf_efficientnet_lite0": ["stem", *(f"block{number}" for number in range(1, 8)), "conv_head"],
    "vit_tiny_patch16_224": ["stem", *(f"block{number}" for number in range(1, 13)), "norm"],
    "resnet18": ["stem", "layer1", "layer2", "layer3", "layer4"],
}


def compute_classifier_input(model: nn.Module, path: str, images: torch.Tensor) -> torch.Tensor:
    """Return the input of the last layer in the whole model."""
    recorded_inputs: list[torch.Tensor] = []
    hook = model.get_submodule(path).register_forward_pre_hook(lambda _, inputs: recorded_inputs.append(inputs[0]))
    model(images)
    hook.remove()
    return recorded_inputs[0]


def check_stages(model: nn.Module, names: list[str], size: int = 224) -> None:
    model.eval()
    split = split_backbone(model, size)
    assert list(split.stages) == names
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        features = images
        for stage in split.stages.values():
            features = stage(features)
        assert torch.equal(features, compute_classifier_input(model, split.classifier_path, images))
    stage_ids = [id(weight) for stage in split.stages.values() for weight in stage.parameters()]
    classifier_ids = [id(weight) for weight in model.get_submodule(split.classifier_path).parameters()]
    assert len(stage_ids) == len(set(stage_ids)), "a parameter is in two stages"
    assert {id(weight) for weight in model.parameters()} == set(stage_ids) | set(classifier_ids)


@pytest.mark.parametrize("name", TORCHVISION_STAGES)
def test_a_torchvision_family_is_split_into_named_stages_that_equal_the_whole(name: str) -> None:
    torch.manual_seed(0)
    check_stages(models.get_model(name, weights=None), TORCHVISION_STAGES[name])


@pytest.mark.parametrize("name", TIMM_STAGES)
def test_a_timm_family_is_split_into_named_stages_that_equal_the_whole(name: str) -> None:
    torch.manual_seed(0)
    check_stages(timm.create_model(name), TIMM_STAGES[name])


def test_parameters_keep_their_paths() -> None:
    model = models.resnet18(weights=None)
    stages = split_backbone(model, 64).stages
    paths = {name for stage in stages.values() for name, _ in stage.named_parameters()}
    assert paths | {"fc.weight", "fc.bias"} == {name for name, _ in model.named_parameters()}


def test_the_model_keeps_its_mode() -> None:
    model = models.resnet18(weights=None).train()
    split_backbone(model, 64)
    assert all(module.training for module in model.modules())


def test_a_size_that_the_network_does_not_take_is_an_error_with_the_fix() -> None:
    with pytest.raises(UserError, match=r"does not take images of 96 pixels(.|\n)*dataset.image_size=null"):
        split_backbone(models.vit_b_32(weights=None), 96)


def test_a_forward_pass_that_cannot_be_traced_is_an_error() -> None:
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
