"""Split every classifier of torchvision, and one or more of each family of timm, into stages."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from torchvision import models

from thaw.config.errors import UserError
from thaw.models.network import Network, pool
from thaw.models.stage_names import RESERVED_NAMES
from thaw.models.stages import BackboneSplit, split_backbone

TORCHVISION = models.list_models(module=models)
TORCHVISION_SIZES = {  # the smallest of each family, at a size that it takes; a test below splits all without values
    **dict.fromkeys(["alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s"], 64),
    **dict.fromkeys(["googlenet", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"], 64),
    **dict.fromkeys(["regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50", "resnext50_32x4d"], 64),
    **dict.fromkeys(["shufflenet_v2_x0_5", "squeezenet1_0", "squeezenet1_1", "swin_t", "swin_v2_t"], 64),
    **dict.fromkeys(["vgg11", "vgg11_bn", "wide_resnet50_2"], 64),
    **{"inception_v3": 75, "maxvit_t": 224, "vit_b_32": 224},
}
TIMM_SIZES = {
    **dict.fromkeys(["convmixer_768_32", "convnext_atto", "convnextv2_atto", "cs3darknet_s", "cspresnet50"], 64),
    **dict.fromkeys(["davit_tiny", "densenet121", "dla46_c", "dpn48b", "edgenext_xx_small"], 64),
    **dict.fromkeys(["efficientnet_b0", "efficientvit_b0", "fasternet_t0", "fastvit_t8", "ghostnet_050"], 64),
    **dict.fromkeys(["hardcorenas_a", "hgnetv2_b0", "hrnet_w18_small", "inception_next_atto", "lcnet_035"], 64),
    **dict.fromkeys(
        ["mambaout_femto", "mobilenetv4_conv_small", "mobilevit_xxs", "mobilevitv2_050", "nf_regnet_b0"], 64
    ),
    **dict.fromkeys(["poolformer_s12", "pvt_v2_b0", "regnety_002", "repghostnet_050", "repvgg_a0", "repvit_m0_9"], 64),
    **dict.fromkeys(["res2net50_26w_4s", "resnest14d", "resnet10t", "resnetv2_18", "rexnet_100", "selecsls42"], 64),
    **dict.fromkeys(["legacy_seresnet18", "skresnet18", "starnet_s1", "swiftformer_xs", "ese_vovnet19b_slim"], 64),
    **dict.fromkeys(["xception41", "mobileone_s0", "tresnet_m", "caformer_s18", "shvit_s1"], 64),
    **dict.fromkeys(["inception_v3", "inception_v4"], 139),
    **dict.fromkeys(["beit_base_patch16_224", "cait_xxs24_224", "coat_lite_tiny", "convit_tiny"], 224),
    **dict.fromkeys(["deit_tiny_distilled_patch16_224", "efficientformer_l1", "efficientformerv2_s0"], 224),
    **dict.fromkeys(
        ["eva02_tiny_patch14_224", "gmlp_ti16_224", "hiera_tiny_224", "levit_128s", "levit_conv_128s"], 224
    ),
    **dict.fromkeys(["mixer_s32_224", "nest_tiny", "pit_ti_224", "resmlp_12_224", "swin_tiny_patch4_window7_224"], 224),
    **dict.fromkeys(["tiny_vit_5m_224", "visformer_tiny", "vit_tiny_patch16_224", "volo_d1_224"], 224),
    **dict.fromkeys(["vit_tiny_r_s16_p8_224", "vitamin_small_224", "sequencer2d_s", "gcvit_xxtiny"], 224),
    **dict.fromkeys(["maxvit_rmlp_pico_rw_256", "swinv2_tiny_window8_256"], 256),
}
SLOW = (  # 2 to 10 s each
    *("coat_lite_tiny", "convmixer_768_32", "eva02_tiny_patch14_224", "gmlp_ti16_224", "resmlp_12_224"),
    *("efficientformer_l1", "inception_v3", "tiny_vit_5m_224"),
    *("beit_base_patch16_224", "cait_xxs24_224", "gcvit_xxtiny", "hiera_tiny_224", "inception_v4"),
    *("maxvit_rmlp_pico_rw_256", "nest_tiny", "sequencer2d_s", "swinv2_tiny_window8_256", "vitamin_small_224"),
    "volo_d1_224",
)
TWO_STAGE_SIZES = {  # several values pass between their blocks: a NASNet cell takes the outputs of two cells
    **dict.fromkeys(["coat_tiny", "mvitv2_tiny", "tnt_s_patch16_224", "xcit_nano_12_p16_224"], 224),
    **dict.fromkeys(["nasnetalarge", "pnasnet5large"], 331),
}
UNTRACEABLE_SIZES = {
    "crossvit_tiny_240": 240,
    "twins_svt_small": 224,
}  # forward passes that branch on, or iterate over, shapes


def split_and_check(model: nn.Module, size: int, min_stages: int = 3) -> BackboneSplit:
    """Split a model; check the names and the parameters of its stages."""
    split = split_backbone(model, size)
    assert len(split.stages) >= min_stages
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*", name) for name in split.stages)
    assert not any(name in RESERVED_NAMES or re.search(r"_\d+$", name) for name in split.stages)
    paths = {id(weight): path for path, weight in model.named_parameters()}
    stage_paths = [paths[id(weight)] for stage in split.stages.values() for weight in stage.parameters()]
    all_paths = [
        *stage_paths,
        *(paths[id(weight)] for weight in model.get_submodule(split.classifier_path).parameters()),
        *split.unused_parameters,
    ]
    assert sorted(all_paths) == sorted(paths.values()), "a parameter is in no part, or in two"
    return split


def check_features(model: nn.Module, size: int) -> None:
    """Compare the features before the last layer and before the classifier with the whole model's; add a new head."""
    split = split_and_check(model, size)
    images = torch.randn(2, 3, size, size)
    container = split.classifier_path.partition(".")[0]
    for path, stages in (
        (split.classifier_path, split.stages),
        (container, split_backbone(model, size, "classifier").stages),
    ):
        network = Network(dict(stages), nn.Identity()).eval()
        with torch.no_grad():
            features = network.forward_stages(images, 0, len(stages))
            assert torch.equal(features, compute_input_of(model, path, images))
            network.head = nn.Linear(pool(features).shape[1], 3)
            assert network(images).shape == (2, 3)


def compute_input_of(model: nn.Module, path: str, images: Tensor) -> Tensor:
    """Return the input of the first layer with weights or dropout under `path` in the whole model."""
    recorded_inputs: list[Tensor] = []
    modules = model.get_submodule(path).modules()
    layers = [module for module in modules if isinstance(module, nn.Dropout) or has_parameters(module)]
    hooks = [layer.register_forward_pre_hook(lambda _, inputs: recorded_inputs.append(inputs[0])) for layer in layers]
    model.eval()(images)
    for hook in hooks:
        hook.remove()
    return recorded_inputs[0]


def has_parameters(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


@pytest.fixture
def build_without_values() -> Iterator[None]:
    """Build modules without memory for their weights; constructors compute everything else."""

    def move_to_meta(module: nn.Module, name: str, value: Tensor | None) -> Tensor | None:
        if value is None or value.is_meta:
            return value
        return nn.Parameter(value.to("meta")) if isinstance(value, nn.Parameter) else value.to("meta")

    hooks = [
        register_module_parameter_registration_hook(move_to_meta),
        register_module_buffer_registration_hook(move_to_meta),
    ]
    yield
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.usefixtures("build_without_values")
def test_every_classifier_of_torchvision_is_split(name: str) -> None:
    """Runs without memory for weights: vit_h_14 and regnet_y_128gf would take 2.5 GB each."""
    keywords = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    model = models.get_model(name, weights=None, **keywords)
    assert not split_and_check(model, 299 if name == "inception_v3" else 224).unused_parameters


@pytest.mark.parametrize("name", TORCHVISION_SIZES)
def test_stages_of_each_family_of_torchvision_give_the_features_of_the_whole(name: str) -> None:
    torch.manual_seed(0)
    check_features(models.get_model(name, weights=None), TORCHVISION_SIZES[name])


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in SLOW)) for name in TIMM_SIZES])
def test_stages_of_the_families_of_timm_give_the_features_of_the_whole(name: str) -> None:
    torch.manual_seed(0)
    check_features(timm.create_model(name, num_classes=10), TIMM_SIZES[name])


@pytest.mark.parametrize("name", TWO_STAGE_SIZES)
def test_networks_whose_blocks_pass_several_values_have_two_stages(name: str) -> None:
    with torch.device("meta"):
        assert len(split_and_check(timm.create_model(name), TWO_STAGE_SIZES[name], min_stages=2).stages) == 2


@pytest.mark.parametrize("name", UNTRACEABLE_SIZES)
def test_a_network_that_cannot_be_traced_is_an_error(name: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match="cannot be traced"):
        split_backbone(timm.create_model(name), UNTRACEABLE_SIZES[name])


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("deit_tiny_distilled_patch16_224", "head", "head_dist"),
        ("levit_128s", "head.linear", "head_dist"),
        ("volo_d1_224", "head", "aux_head"),
        ("repvit_m0_9", "head.head.l", "head.head_dist"),
    ],
)
def test_the_first_of_two_averaged_classifiers_is_replaced_and_the_second_is_unused(
    name: str, first: str, second: str
) -> None:
    with torch.device("meta"):
        split = split_backbone(timm.create_model(name), 224)
    assert split.classifier_path == first
    assert split.unused_parameters
    assert all(path.startswith(f"{second}.") for path in split.unused_parameters)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_in_no_stage(name: str) -> None:
    with torch.device("meta"):
        split = split_backbone(models.get_model(name, weights=None), 299)
    assert {path.split(".")[0] for path in split.unused_parameters} <= {"aux1", "aux2", "AuxLogits"}
    assert split.unused_parameters
