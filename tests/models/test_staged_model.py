"""Networks of torchvision, of timm and of the user as stages and a head."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import Tensor, nn
from torchvision import models

from thaw.config.errors import UserError
from thaw.models.staged_model import split_stages


class SmallNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 8, 3, stride=2)
        self.classifier = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> Tensor:
        maps = self.second(self.first(images).relu()).relu()
        logits: Tensor = self.classifier(maps.mean((2, 3)))
        return logits.log_softmax(1)


NETWORKS = {
    "torchvision's resnet18": (
        lambda: models.resnet18(weights=None),
        64,
        ["stem", *(f"layer{n}" for n in range(1, 5))],
    ),
    "torchvision's squeezenet": (  # a convolution and a pooling are its classifier
        lambda: models.squeezenet1_1(weights=None),
        64,
        ["stem", "block1", "block2", "block3"],
    ),
    "timm's vit": (
        lambda: timm.create_model("vit_tiny_patch16_224", img_size=32),
        32,
        ["stem", *(f"block{n}" for n in range(1, 13)), "norm"],
    ),
    "timm's deit": (  # its two classifiers read two tokens
        lambda: timm.create_model("deit_tiny_distilled_patch16_224", img_size=32),
        32,
        ["stem", *(f"block{n}" for n in range(1, 13)), "norm"],
    ),
    "a user's network": (SmallNetwork, 16, ["stem", "second"]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_stages_and_head_give_the_output_of_the_network(name: str) -> None:
    torch.manual_seed(0)
    build, size, stage_names = NETWORKS[name]
    model = build().eval()
    staged_model = split_stages(model, size)
    images = torch.randn(2, 3, size, size)
    with torch.no_grad():
        features = images
        for stage in staged_model.stages.values():
            features = stage(features)
        assert torch.equal(staged_model.head(features), model(images))
        assert torch.equal(staged_model(images), model(images))
    assert list(staged_model.stages) == stage_names
    assert {id(weight) for weight in staged_model.parameters()} == {id(weight) for weight in model.parameters()}


def test_the_table_shows_output_parameters_and_cost_of_each_stage() -> None:
    staged_model = split_stages(models.resnet18(weights=None), 64)
    lines = repr(staged_model).splitlines()
    assert lines[0] == "ResNet: 5 stages and a head, images of 64 x 64"
    assert lines[1].split() == ["stage", "output", "parameters", "multiply-adds"]
    assert lines[2].split() == ["stem", "64", "x", "16", "x", "16", "9,536", "9,633,792"]
    assert lines[-1].split()[:2] == ["total", "11,689,512"]
    page = staged_model._repr_html_()
    assert "<td>layer4</td>" in page
    assert "<th>multiply-adds</th>" in page


def test_a_data_frame_has_a_row_per_stage() -> None:
    pandas = pytest.importorskip("pandas")
    frame = split_stages(models.resnet18(weights=None), 64).to_frame()
    assert isinstance(frame, pandas.DataFrame)
    assert frame["stage"].tolist() == ["stem", "layer1", "layer2", "layer3", "layer4", "head"]
    assert frame["parameters"].sum() == 11_689_512


def test_the_network_keeps_its_mode() -> None:
    model = models.resnet18(weights=None).train()
    split_stages(model, 64)
    assert all(module.training for module in model.modules())


class DictNetwork(SmallNetwork):
    def forward(self, images: Tensor) -> dict[str, Tensor]:  # type: ignore[override]
        return {"logits": super().forward(images)}


class BranchingNetwork(SmallNetwork):
    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images if images.sum() > 0 else -images)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (BranchingNetwork(), "BranchingNetwork cannot be traced"),
        (DictNetwork(), "does not return a single tensor"),
        (nn.Flatten(), "no layer with weights"),
        (nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 1)), "does not take images of 16 pixels"),
    ],
)
def test_a_network_that_cannot_be_split_is_an_error(model: nn.Module, message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_stages(model, 16)
