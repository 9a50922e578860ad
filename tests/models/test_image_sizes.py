"""Image sizes that a network cannot take, and names of networks that do not exist, before anything is downloaded."""

from __future__ import annotations

import re

import pytest

from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.config.schema import BackboneConfig
from thaw.models.image_sizes import check_backbone


def compose_backbone(library: str, name: str) -> BackboneConfig:
    return compose_recipe([f"backbone={library}", f"backbone.name={name}"]).backbone


def get_error(backbone: BackboneConfig, random_init: bool, size: int | None) -> str:
    with pytest.raises(UserError) as caught:
        check_backbone(backbone, random_init, size)
    return str(caught.value)


@pytest.mark.parametrize(
    ("library", "name", "size", "valid"),
    [
        ("torchvision", "vit_b_32", 100, "multiples of 32: 96, 128, 224 pixels"),
        ("timm", "xcit_nano_12_p16_224", 100, "multiples of 16: 96, 112, 224 pixels"),
        pytest.param("timm", "maxvit_rmlp_pico_rw_256", 100, "multiples of 32: 96, 128, 256", marks=pytest.mark.long),
    ],
)
def test_the_nearest_sizes_are_named_and_the_fix_is_taken(library: str, name: str, size: int, valid: str) -> None:
    backbone = compose_backbone(library, name)
    message = get_error(backbone, True, size)
    assert f"{name} does not take images of {size} pixels" in message
    assert valid in message
    fixed_size = re.search(r"fix: +dataset.image_size=(\d+)", message)
    assert fixed_size
    check_backbone(backbone, True, int(fixed_size[1]))


def test_pretrained_weights_of_a_fixed_size_take_that_size_alone() -> None:
    backbone = compose_backbone("torchvision", "vit_b_32")
    assert "fix:   dataset.image_size=224" in get_error(backbone, False, 33)
    check_backbone(backbone, False, 224)
    check_backbone(backbone, False, None)


@pytest.mark.parametrize("size", [32, 97, 500])
def test_networks_that_take_any_size_take_it(size: int) -> None:
    check_backbone(compose_recipe([]).backbone, False, size)


def test_a_tag_that_timm_does_not_have_is_an_error_with_those_that_exist() -> None:
    message = get_error(compose_backbone("timm", "resnet18.a9_in1k"), True, None)
    assert re.search(r"valid: tags of resnet18: a\d_in1k, ", message)
    assert re.search(r"fix:   backbone.name=resnet18.a\d_in1k$", message)
    assert "fix:   backbone.name=resnet10t" in get_error(compose_backbone("timm", "resnet10t.nope"), True, None)


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("resnet34", "backbone=torchvision backbone.name=resnet34"),
        ("resnet18", "backbone=resnet18"),
        ("resnet18.a1_in1k", "backbone=timm backbone.name=resnet18.a1_in1k"),
    ],
)
def test_packaged_weights_belong_to_one_network(name: str, fix: str) -> None:
    with pytest.raises(UserError) as caught:
        compose_recipe([f"backbone.name={name}"])
    assert str(caught.value).endswith(f"fix:   {fix}")
    compose_recipe(fix.split())
    compose_recipe([f"backbone.name={name}", "strategy=scratch"])  # needs no weights
