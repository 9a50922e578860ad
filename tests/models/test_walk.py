"""Every classifier of torchvision, and one or more of each family of timm's, cut into stages."""

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
WITH_VALUES = {  # the smallest of each family, at a side that it takes; all of them pass without values below
    **dict.fromkeys(["alexnet", "convnext_tiny", "densenet121", "efficientnet_b0", "efficientnet_v2_s"], 64),
    **dict.fromkeys(["googlenet", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small", "mobilenet_v3_large"], 64),
    **dict.fromkeys(["regnet_x_400mf", "regnet_y_400mf", "resnet18", "resnet50", "resnext50_32x4d"], 64),
    **dict.fromkeys(["shufflenet_v2_x0_5", "squeezenet1_0", "squeezenet1_1", "swin_t", "swin_v2_t"], 64),
    **dict.fromkeys(["vgg11", "vgg11_bn", "wide_resnet50_2"], 64),
    **{"inception_v3": 75, "maxvit_t": 224, "vit_b_32": 224},
}
OF_TIMM = {
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
FEW = {  # more than one value passes between their blocks, as a NASNet cell takes the outputs of two
    **dict.fromkeys(["coat_tiny", "mvitv2_tiny", "tnt_s_patch16_224", "xcit_nano_12_p16_224"], 224),
    **dict.fromkeys(["nasnetalarge", "pnasnet5large"], 331),
}
UNCUT = {"crossvit_tiny_240": 240, "twins_svt_small": 224}  # forward passes that branch on, or iterate over, shapes


def checked(model: nn.Module, size: int, at_least: int = 3) -> BackboneSplit:
    """The split, after what must hold of its names and parameters."""
    cut = split_backbone(model, size)
    assert len(cut.stages) >= at_least
    assert all(re.fullmatch(r"[A-Za-z][A-Za-z0-9]*(_[A-Za-z0-9]+)*", name) for name in cut.stages)
    assert not any(name in RESERVED_NAMES or re.search(r"_\d+$", name) for name in cut.stages)
    paths = {id(weight): path for path, weight in model.named_parameters()}
    placed = [paths[id(weight)] for stage in cut.stages.values() for weight in stage.parameters()]
    parts = [
        *placed,
        *(paths[id(weight)] for weight in model.get_submodule(cut.classifier_path).parameters()),
        *cut.unused_parameters,
    ]
    assert sorted(parts) == sorted(paths.values()), "a parameter is in no part, or in two"
    return cut


def compare(model: nn.Module, size: int) -> None:
    """Both cuts against the whole, bit for bit, and a new head behind each."""
    cut = checked(model, size)
    images = torch.randn(2, 3, size, size)
    container = cut.classifier_path.partition(".")[0]
    for place, stages in (
        (cut.classifier_path, cut.stages),
        (container, split_backbone(model, size, "classifier").stages),
    ):
        network = Network(dict(stages), nn.Identity()).eval()
        with torch.no_grad():
            features = network.forward_stages(images, 0, len(stages))
            assert torch.equal(features, handed_to(model, place, images))
            network.head = nn.Linear(pool(features).shape[1], 3)
            assert network(images).shape == (2, 3)


def handed_to(model: nn.Module, path: str, images: Tensor) -> Tensor:
    """What the whole model hands to the first layer under `path` that has weights or drops values."""
    seen: list[Tensor] = []
    layers = [one for one in model.get_submodule(path).modules() if isinstance(one, nn.Dropout) or has_own(one)]
    hooks = [one.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for one in layers]
    model.eval()(images)
    for hook in hooks:
        hook.remove()
    return seen[0]


def has_own(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


@pytest.fixture
def without_values() -> Iterator[None]:
    """Modules are built without memory for their weights; what else a constructor computes, it computes."""

    def on_meta(module: nn.Module, name: str, value: Tensor | None) -> Tensor | None:
        if value is None or value.is_meta:
            return value
        return nn.Parameter(value.to("meta")) if isinstance(value, nn.Parameter) else value.to("meta")

    hooks = [register_module_parameter_registration_hook(on_meta), register_module_buffer_registration_hook(on_meta)]
    yield
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("name", TORCHVISION)
@pytest.mark.usefixtures("without_values")
def test_every_classifier_of_torchvision_is_cut(name: str) -> None:
    """Without values or memory for them: vit_h_14 and regnet_y_128gf would take 2.5 GB each."""
    keywords = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    model = models.get_model(name, weights=None, **keywords)
    assert not checked(model, 299 if name == "inception_v3" else 224).unused_parameters


@pytest.mark.parametrize("name", WITH_VALUES)
def test_each_family_of_torchvision_computes_what_it_computed_whole(name: str) -> None:
    torch.manual_seed(0)
    compare(models.get_model(name, weights=None), WITH_VALUES[name])


@pytest.mark.parametrize("name", [pytest.param(one, marks=[pytest.mark.long] * (one in SLOW)) for one in OF_TIMM])
def test_the_families_of_timm_compute_what_they_computed_whole(name: str) -> None:
    torch.manual_seed(0)
    compare(timm.create_model(name, num_classes=10), OF_TIMM[name])


@pytest.mark.parametrize("name", FEW)
def test_networks_whose_blocks_pass_several_values_have_few_stages(name: str) -> None:
    with torch.device("meta"):
        assert len(checked(timm.create_model(name), FEW[name], at_least=2).stages) == 2


@pytest.mark.parametrize("name", UNCUT)
def test_a_network_that_cannot_be_cut_is_told(name: str) -> None:
    with torch.device("meta"), pytest.raises(UserError, match="cannot be traced"):
        split_backbone(timm.create_model(name), UNCUT[name])


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("deit_tiny_distilled_patch16_224", "head", "head_dist"),
        ("levit_128s", "head.linear", "head_dist"),
        ("volo_d1_224", "head", "aux_head"),
        ("repvit_m0_9", "head.head.l", "head.head_dist"),
    ],
)
def test_of_two_averaged_classifiers_the_first_is_replaced_and_the_second_named_unused(
    name: str, first: str, second: str
) -> None:
    with torch.device("meta"):
        cut = split_backbone(timm.create_model(name), 224)
    assert cut.classifier_path == first
    assert cut.unused_parameters
    assert all(path.startswith(f"{second}.") for path in cut.unused_parameters)


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_classifiers_are_in_no_stage(name: str) -> None:
    with torch.device("meta"):
        cut = split_backbone(models.get_model(name, weights=None), 299)
    assert {path.split(".")[0] for path in cut.unused_parameters} <= {"aux1", "aux2", "AuxLogits"}
    assert cut.unused_parameters
