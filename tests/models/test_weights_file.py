"""Weights files of other codes: other keys, prefixes and wrappers, and files that must be refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision import models

from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.models.pretrained import load_pretrained
from thaw.models.weights_file import WeightsFile, load_weights_file
from thaw.system.reporter import ConsoleReporter


class SmallNet(nn.Module):
    """A convolution, a normalization and a classifier: the kinds of tensors that weights files hold."""

    def __init__(self, num_classes: int = 5) -> None:
        super().__init__()
        self.layer1 = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
        self.layer2 = nn.Sequential(nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6))
        self.fc = nn.Linear(6, num_classes)


def draw_state(seed: int = 0, num_classes: int = 5) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(SmallNet(num_classes).state_dict())


def add_prefix(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": value for name, value in state.items()}


STATE, OTHER_STATE = draw_state(), draw_state(1)
COUNTER = "layer1.1.num_batches_tracked"
FILES: dict[str, tuple[Any, str]] = {
    "plain": (STATE, ""),
    "torch.compile": (add_prefix("_orig_mod.", STATE), "_orig_mod"),
    "compiled layer": ({name.replace("layer1.", "layer1._orig_mod."): value for name, value in STATE.items()}, ""),
    "DataParallel": ({"epoch": 3, "state_dict": add_prefix("module.", STATE)}, "state_dict.module"),
    "Lightning": ({"state_dict": add_prefix("net._orig_mod.", STATE), "loops": {}}, "state_dict.net._orig_mod"),
    "MoCo": (
        {
            "state_dict": {
                **add_prefix("module.encoder_k.", OTHER_STATE),
                **add_prefix("module.encoder_q.", STATE),
                "module.queue": torch.zeros(3, 9),
            }
        },
        "state_dict.module.encoder_q",
    ),
    "timm": ({"model_ema": add_prefix("module.", OTHER_STATE), "state_dict": STATE}, "state_dict"),
    "DINO": (
        {"student": add_prefix("module.", OTHER_STATE), "teacher": add_prefix("backbone.", STATE)},
        "teacher.backbone",
    ),
    "SWA": ({"n_averaged": torch.tensor(3), **add_prefix("module.", STATE)}, "module"),
    "accuracy beside": ({"net": STATE, "acc": 93.0, "epoch": 7}, "net"),
    "deep": ({"a": {"b": {"params": add_prefix("trunk.x.", STATE)}}}, "a.b.params.trunk.x"),
    "optimizer": (
        {"params": STATE, "optimizer": {"state": {0: {"exp_avg": torch.zeros(4)}}, "param_groups": [{"lr": 1}]}},
        "params",
    ),
    "the same twice": ({"model": STATE, "net": STATE}, "model"),
}


def load_saved(content: Any, file: Path, model: nn.Module | None = None) -> WeightsFile:
    torch.save(content, file)
    return load_weights_file(file, model or SmallNet())


@pytest.mark.parametrize(("content", "prefix"), FILES.values(), ids=FILES)
def test_a_network_is_found_below_any_keys_and_prefixes(content: Any, prefix: str, tmp_path: Path) -> None:
    weights_file = load_saved(content, tmp_path / "x.pth")
    assert weights_file.prefix == prefix
    assert weights_file.tensors.keys() == STATE.keys()
    assert all(weights_file.tensors[name].equal(value) for name, value in STATE.items())
    assert prefix in weights_file.describe()


def test_copies_that_are_not_taken_are_named(tmp_path: Path) -> None:
    weights_file = load_saved(FILES["timm"][0], tmp_path / "x.pth")
    assert (
        weights_file.describe() == "weights x.pth: the tensors under state_dict; not taken, as copies: model_ema.module"
    )


def test_counters_may_be_missing_and_the_classifier_may_be_another(tmp_path: Path) -> None:
    state = {name: value for name, value in draw_state(num_classes=7).items() if "num_batches" not in name}
    model = SmallNet()
    weights_file = load_saved(state, tmp_path / "x.pth", model)
    model.load_state_dict(weights_file.tensors)
    assert weights_file.random_names == ("fc.weight", "fc.bias")
    assert model.layer2[0].weight.equal(state["layer2.0.weight"])
    projection = {"fc.0.weight": torch.zeros(6, 6), "fc.2.weight": torch.zeros(9, 6)}  # MoCo v2
    state = {name: value for name, value in STATE.items() if not name.startswith("fc")}
    assert load_saved({**state, **projection}, tmp_path / "x.pth").random_names == ("fc.weight", "fc.bias")


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_the_content_decides_the_format_and_half_precision_is_converted(suffix: str, tmp_path: Path) -> None:
    half = {name: value.half() if value.is_floating_point() else value for name, value in STATE.items()}
    save_file(half, tmp_path / f"x{suffix}")
    tensors = load_weights_file(tmp_path / f"x{suffix}", SmallNet()).tensors
    assert all(tensors[name].equal(value) for name, value in half.items())


def replace_tensor(change: Callable[[Tensor], Tensor], name: str = "layer1.0.weight") -> dict[str, Tensor]:
    return {**STATE, name: change(STATE[name])}


REFUSED: dict[str, tuple[Any, str]] = {
    "two networks": ({"net1": STATE, "net2": OTHER_STATE}, "fit under net1, net2"),
    "missing": (
        {name: value for name, value in STATE.items() if name != "layer1.1.bias"},
        "1 tensor missing: layer1.1.bias",
    ),
    "unknown": ({**STATE, "layer3.0.weight": torch.zeros(2)}, "1 tensor not in the network: layer3.0.weight"),
    "shape": (replace_tensor(lambda value: value[:2]), "1 tensor of another shape: layer1.0.weight"),
    "another network": ({"state": models.squeezenet1_0().state_dict()}, "the file's keys: state (52 tensors)"),
    "meta": (replace_tensor(lambda value: value.to("meta")), "layer1.0.weight (a meta tensor"),
    "sparse": (replace_tensor(lambda value: value.to_sparse()), "layer1.0.weight (a sparse tensor)"),
    "complex": (replace_tensor(lambda value: value.to(torch.complex64)), "layer1.0.weight (torch.complex64)"),
    "integer": (replace_tensor(lambda value: value.to(torch.int8)), "layer1.0.weight (torch.int8)"),
    "NaN": (replace_tensor(lambda value: value * float("nan")), "NaN or infinite values in layer1.0.weight"),
    "beyond float32": (replace_tensor(lambda value: value.double() * 1e300), "infinite values in layer1.0.weight"),
    "no tensors": ({"accuracy": 0.5}, "no tensors by name"),
    "whole module": (nn.Linear(2, 2), "pickled objects (torch.nn.modules.linear.Linear)"),
    "checkpoint of thaw": ({"thaw": {"format": 1}, "state_dict": STATE}, "--format safetensors --out"),
}


@pytest.mark.parametrize(("content", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_the_network_is_refused_with_its_names(content: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_saved(content, tmp_path / "x.pth")
    assert message in str(caught.value)


@pytest.mark.filterwarnings("ignore:.*quantized:UserWarning")
def test_quantized_weights_are_refused(tmp_path: Path) -> None:
    state = replace_tensor(lambda value: torch.quantize_per_tensor(value, 0.1, 0, torch.qint8))
    with pytest.raises(UserError, match=r"layer1\.0\.weight \(quantized"):
        load_saved(state, tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "git lfs pull"),
        (b"\n <!DOCTYPE html><html><body>Sign in</body></html>", "a web page"),
        ("<html>404</html>".encode("utf-16"), "a web page"),
        (b'{"message": "Not Found"}', "a server's answer"),
        (b"", "the file is empty"),
    ],
)
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_what_a_download_leaves_instead_of_a_file_is_named(
    content: bytes, message: str, suffix: str, tmp_path: Path
) -> None:
    file = tmp_path / f"x{suffix}"
    file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        load_weights_file(file, SmallNet())


def test_a_backbone_says_and_records_which_tensors_it_took(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "mine.ckpt"
    torch.save({"model_ema": add_prefix("module.", dict(models.resnet18(weights=None).state_dict()))}, file)
    backbone = compose_recipe(["backbone=resnet18", f"backbone.weights={file}"]).backbone
    pretrained = load_pretrained(backbone, False, tmp_path, None, reporter=ConsoleReporter())
    assert "weights mine.ckpt: the tensors under model_ema.module" in capsys.readouterr().out
    assert pretrained.weights_info["prefix"] == "model_ema.module"
