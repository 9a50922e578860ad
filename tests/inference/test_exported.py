"""Exports: what they hold, who can run them, and that a wrong one never gets its name."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from tests.images import image_folder
from thaw.cli.export import SUFFIXES
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.inference import export, export_formats
from thaw.inference.export import ExportMismatchError, export_model, load_check_images
from thaw.inference.export_formats import FORMATS, ExportFormat
from thaw.inference.load import Classifier, load_checkpoint
from thaw.models.factory import load_seeded_pretrained, uninitialized_network
from thaw.models.pretrained import load_pretrained

TINY = "backbone=timm backbone.name=test_resnet"
CLASSES = ("A", "B", "Ä")
HEADS = {
    "linear": ("head.dropout=0.2",),
    "mlp": ("head=mlp", "head.hidden=[8]"),
    "cosine": ("head=cosine",),
    "source_rows": ("head=source_rows", "head.rows={A: ant}", "strategy=finetune", "backbone.weights=none"),
}


def trained(backbone: str, head: str = "linear", size: int = 32) -> Classifier:
    """As restored from a checkpoint; its weights are random."""
    choice = [f"backbone={backbone}"] if "=" not in backbone else backbone.split()
    base = ("strategy=scratch", f"dataset.image_size={size}")
    if head == "source_rows":
        base, values = base[1:], HEADS[head][:2]
    else:
        values = HEADS[head]
    recipe = compose_recipe([*choice, *base, *values])
    source = load_seeded_pretrained(recipe.backbone, True, 0, Path(), None, size)
    preprocessing = source.preprocessing.with_size(size, 1.0)
    network = uninitialized_network(source, recipe.head, len(CLASSES), preprocessing)
    return Classifier(network.eval(), CLASSES, preprocessing, recipe)


@pytest.fixture(scope="module")
def tiny() -> Classifier:
    return trained(TINY)


@pytest.fixture
def images() -> Tensor:
    chance = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8, generator=chance)


def test_onnx_runs_without_thaw_on_any_number_of_images(tmp_path: Path, tiny: Classifier, images: Tensor) -> None:
    original, file = tiny, tmp_path / "model.onnx"
    checked = export_model(original, "onnx", file, images)
    assert (checked.num_images, checked.num_same) == (9, 9)
    assert [one.name for one in tmp_path.iterdir()] == ["model.onnx"], "one file, nothing beside it"
    model = onnx.load(file)
    (given,) = model.graph.input
    assert [one.dim_param or one.dim_value for one in given.type.tensor_type.shape.dim] == ["batch", 3, 32, 32]
    assert given.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    session = onnxruntime.InferenceSession(file)
    for count in (1, 7):
        logits, probabilities = session.run(["logits", "probabilities"], {"images": images[:count].numpy()})
        assert logits.shape == (count, 3)
        assert torch.allclose(torch.from_numpy(probabilities), original.predict_proba(images[:count]), atol=1e-5)
    held = {one.key: json.loads(one.value) for one in model.metadata_props}
    assert held["classes"] == ["A", "B", "Ä"]
    assert held["preprocessing"]["mean"] == list(original.preprocessing.mean)
    assert held["recipe"]["backbone"]["name"] == original.recipe.backbone.name
    assert [one["name"] for one in held["stages"]] == [*original.network.stages, "head"]
    assert held["input"]["shape"] == ["batch", 3, 32, 32]


WITHOUT_THAW = """
import json, sys, torch
sys.modules["thaw"] = None
images = torch.load("images.pt", weights_only=True)
held = {"classes.json": ""}
program = torch.export.load("model.pt2", extra_files=held).module()
script = torch.jit.load("model.torchscript")
for one in (program, script):
    for count in (1, 7):
        logits, probabilities = one(images[:count])
        assert torch.allclose(logits.softmax(1), probabilities)
    print(json.dumps(probabilities.tolist()))
print(held["classes.json"])
"""


def test_programs_and_scripts_need_torch_alone(tmp_path: Path, tiny: Classifier, images: Tensor) -> None:
    for name in ("torch_export", "torchscript"):
        assert export_model(tiny, name, tmp_path / f"model{SUFFIXES[name]}", images).num_same == 9
    torch.save(images, tmp_path / "images.pt")
    run = [sys.executable, "-W", "ignore", "-c", WITHOUT_THAW]
    told = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    program, script, classes = map(json.loads, told.stdout.splitlines())
    wanted = tiny.predict_proba(images[:7])
    assert torch.allclose(torch.tensor(program), wanted, atol=1e-5)
    assert torch.allclose(torch.tensor(script), wanted, atol=1e-5)
    assert classes == list(CLASSES)


def test_safetensors_of_a_linear_head_load_into_the_librarys_own_network(
    tmp_path: Path, tiny: Classifier, images: Tensor
) -> None:
    file = tmp_path / "model.safetensors"
    export_model(tiny, "safetensors", file, images)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    model.load_state_dict(load_file(file))
    mean, deviation = (torch.tensor(one).view(3, 1, 1) for one in (tiny.preprocessing.mean, tiny.preprocessing.std))
    with torch.no_grad():
        theirs = model((images / 255 - mean) / deviation).softmax(1)
    assert torch.allclose(theirs, tiny.predict_proba(images), atol=1e-5)
    with safe_open(file, "pt") as opened:
        held = opened.metadata()
    assert json.loads(held["classes"]) == list(CLASSES)
    assert json.loads(held["input"])["steps"][-1].startswith("divide by 255, subtract")


@pytest.mark.parametrize("head", HEADS)
def test_safetensors_with_every_head_are_restored_and_are_source_weights(
    head: str, tmp_path: Path, images: Tensor
) -> None:
    original, file = trained(TINY, head), tmp_path / "model.safetensors"
    export_model(original, "safetensors", file, images)
    again = load_checkpoint(file)
    assert again.classes == CLASSES
    assert torch.equal(again.predict_proba(images), original.predict_proba(images))
    source = load_pretrained(original.recipe.backbone.model_copy(update={"weights": str(file)}), False, tmp_path, None)
    stem = dict(original.network.stages["stem"].named_parameters())
    loaded = dict(source.model.named_parameters())
    assert stem
    assert all(torch.equal(loaded[name], value) for name, value in stem.items())


def test_a_head_in_place_of_a_convolution_has_its_shape(tmp_path: Path, images: Tensor) -> None:
    original, file = trained("backbone=torchvision backbone.name=squeezenet1_1", size=64), tmp_path / "m.safetensors"
    export_model(original, "safetensors", file, torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert load_file(file)["classifier.1.weight"].shape == (3, 512, 1, 1)


@pytest.mark.parametrize("head", ["mlp", "cosine"])
def test_programs_hold_every_head(head: str, tmp_path: Path, images: Tensor) -> None:
    original = trained(TINY, head)
    assert export_model(original, "torchscript", tmp_path / "m.torchscript", images).num_same == 9


def broken(write: Any) -> ExportFormat:
    return ExportFormat(write, FORMATS["torchscript"].load, lambda _: "")


def test_an_export_that_computes_something_else_never_gets_its_name(
    tmp_path: Path, tiny: Classifier, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(original: Any, metadata: dict[str, str], file: Path) -> None:
        other = copy.deepcopy(original)
        with torch.no_grad():
            other.network.head[-1].bias.add_(torch.tensor([0.0, 0.0, 0.1]))
        FORMATS["torchscript"].write(other, metadata, file)

    file = tmp_path / "m.torchscript"
    file.write_text("an earlier export")
    monkeypatch.setattr(export, "FORMATS", {**FORMATS, "broken": broken(write)})
    with pytest.raises(ExportMismatchError) as caught:
        export_model(tiny, "broken", file, images)
    assert caught.value.check.max_logit_difference == pytest.approx(0.1, abs=1e-4)
    assert [one.name for one in tmp_path.iterdir()] == ["m.torchscript"]
    assert file.read_text() == "an earlier export"


def test_what_is_not_a_number_is_no_rounding(
    tmp_path: Path, tiny: Classifier, images: Tensor, monkeypatch: Any
) -> None:
    sick = broken(FORMATS["torchscript"].write)
    monkeypatch.setattr(
        export,
        "FORMATS",
        {"sick": ExportFormat(sick.write, lambda _: lambda one: torch.full((len(one), 3), torch.nan), sick.describe)},
    )
    with pytest.raises(ExportMismatchError):
        export_model(tiny, "sick", tmp_path / "m.torchscript", images)


def test_a_network_that_torch_cannot_write_is_told_with_another_format(
    tmp_path: Path, tiny: Classifier, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(original: Classifier, metadata: dict[str, str], file: Path) -> None:
        raise torch.onnx.errors.OnnxExporterError("no such operator\nand more")

    monkeypatch.setattr(export, "FORMATS", {**FORMATS, "onnx": broken(write)})
    with pytest.raises(UserError, match=r"no such operator(.|\n)*--format torch_export"):
        export_model(tiny, "onnx", tmp_path / "m.onnx", images)


def test_what_is_too_large_for_onnx_is_told(
    tmp_path: Path, tiny: Classifier, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_formats, "MAX_ONNX_BYTES", 1000)
    with pytest.raises(UserError, match=r"too large for ONNX(.|\n)*--format torch_export"):
        export_model(tiny, "onnx", tmp_path / "m.onnx", images)


def test_test_images_of_the_run_are_taken_where_they_are_here_and_noise_is_called_noise(tmp_path: Path) -> None:
    root = image_folder(tmp_path / "data", {"train": 1, "val": 60}, classes=("ants", "bees"))
    original = trained("resnet18")
    folder = compose_recipe(["dataset=hymenoptera", "strategy=scratch"])
    away = Classifier(original.network, original.classes, original.preprocessing, folder)
    assert "noise, NOT on real ones" in load_check_images(away, [], None).description
    shown = load_check_images(away, [], str(root))
    assert shown.description == "100 real test images of hymenoptera"
    assert shown.pixels.shape == (100, 3, 32, 32)
    given = sorted(root.rglob("*.png"))[:2]
    assert load_check_images(away, given, None).description == "2 real images"
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"text\.png"):
        load_check_images(away, [*given, tmp_path / "text.png"], None)
