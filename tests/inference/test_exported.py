"""Exports: their content, running them without thaw, and the check before they replace a file."""

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

from tests.images import write_image_folder
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


def build_classifier(backbone: str, head: str = "linear", size: int = 32) -> Classifier:
    """Build a classifier with random weights, as if loaded from a checkpoint."""
    overrides = [f"backbone={backbone}"] if "=" not in backbone else backbone.split()
    defaults = ("strategy=scratch", f"dataset.image_size={size}")
    if head == "source_rows":
        defaults, head_overrides = defaults[1:], HEADS[head][:2]
    else:
        head_overrides = HEADS[head]
    recipe = compose_recipe([*overrides, *defaults, *head_overrides])
    pretrained = load_seeded_pretrained(recipe.backbone, True, 0, Path(), None, size)
    preprocessing = pretrained.preprocessing.with_size(size, 1.0)
    network = uninitialized_network(pretrained, recipe.head, len(CLASSES), preprocessing)
    return Classifier(network.eval(), CLASSES, preprocessing, recipe)


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return build_classifier(TINY)


@pytest.fixture
def images() -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 256, (9, 3, 32, 32), dtype=torch.uint8, generator=generator)


def test_onnx_runs_without_thaw_on_any_number_of_images(tmp_path: Path, classifier: Classifier, images: Tensor) -> None:
    file = tmp_path / "model.onnx"
    check = export_model(classifier, "onnx", file, images)
    assert (check.num_images, check.num_same) == (9, 9)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"], "a single file"
    model = onnx.load(file)
    (model_input,) = model.graph.input
    dims = model_input.type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == ["batch", 3, 32, 32]
    assert model_input.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    session = onnxruntime.InferenceSession(file)
    for count in (1, 7):
        logits, probabilities = session.run(["logits", "probabilities"], {"images": images[:count].numpy()})
        assert logits.shape == (count, 3)
        assert torch.allclose(torch.from_numpy(probabilities), classifier.predict_proba(images[:count]), atol=1e-5)
    metadata = {prop.key: json.loads(prop.value) for prop in model.metadata_props}
    assert metadata["classes"] == ["A", "B", "Ä"]
    assert metadata["preprocessing"]["mean"] == list(classifier.preprocessing.mean)
    assert metadata["recipe"]["backbone"]["name"] == classifier.recipe.backbone.name
    assert [stage["name"] for stage in metadata["stages"]] == [*classifier.network.stages, "head"]
    assert metadata["input"]["shape"] == ["batch", 3, 32, 32]


WITHOUT_THAW = """
import json, sys, torch
sys.modules["thaw"] = None
images = torch.load("images.pt", weights_only=True)
extra_files = {"classes.json": ""}
program = torch.export.load("model.pt2", extra_files=extra_files).module()
script = torch.jit.load("model.torchscript")
for module in (program, script):
    for count in (1, 7):
        logits, probabilities = module(images[:count])
        assert torch.allclose(logits.softmax(1), probabilities)
    print(json.dumps(probabilities.tolist()))
print(extra_files["classes.json"])
"""


def test_programs_and_scripts_run_with_torch_only(tmp_path: Path, classifier: Classifier, images: Tensor) -> None:
    for name in ("torch_export", "torchscript"):
        assert export_model(classifier, name, tmp_path / f"model{SUFFIXES[name]}", images).num_same == 9
    torch.save(images, tmp_path / "images.pt")
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_THAW]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    program, script, classes = map(json.loads, result.stdout.splitlines())
    expected = classifier.predict_proba(images[:7])
    assert torch.allclose(torch.tensor(program), expected, atol=1e-5)
    assert torch.allclose(torch.tensor(script), expected, atol=1e-5)
    assert classes == list(CLASSES)


def test_safetensors_of_a_linear_head_load_into_the_librarys_network(
    tmp_path: Path, classifier: Classifier, images: Tensor
) -> None:
    file = tmp_path / "model.safetensors"
    export_model(classifier, "safetensors", file, images)
    model = timm.create_model("test_resnet", num_classes=3).eval()
    model.load_state_dict(load_file(file))
    preprocessing = classifier.preprocessing
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    with torch.no_grad():
        probabilities = model((images / 255 - mean) / std).softmax(1)
    assert torch.allclose(probabilities, classifier.predict_proba(images), atol=1e-5)
    with safe_open(file, "pt") as tensors:
        metadata = tensors.metadata()
    assert json.loads(metadata["classes"]) == list(CLASSES)
    assert json.loads(metadata["input"])["steps"][-1].startswith("divide by 255, subtract")


@pytest.mark.parametrize("head", HEADS)
def test_safetensors_with_every_head_are_loaded_as_checkpoints_and_as_pretrained_weights(
    head: str, tmp_path: Path, images: Tensor
) -> None:
    original, file = build_classifier(TINY, head), tmp_path / "model.safetensors"
    export_model(original, "safetensors", file, images)
    loaded = load_checkpoint(file)
    assert loaded.classes == CLASSES
    assert torch.equal(loaded.predict_proba(images), original.predict_proba(images))
    backbone = original.recipe.backbone.model_copy(update={"weights": str(file)})
    pretrained = load_pretrained(backbone, False, tmp_path, None)
    stem = dict(original.network.stages["stem"].named_parameters())
    parameters = dict(pretrained.model.named_parameters())
    assert stem
    assert all(torch.equal(parameters[name], value) for name, value in stem.items())


def test_a_head_that_replaces_a_convolution_has_its_shape(tmp_path: Path, images: Tensor) -> None:
    original, file = (
        build_classifier("backbone=torchvision backbone.name=squeezenet1_1", size=64),
        tmp_path / "m.safetensors",
    )
    export_model(original, "safetensors", file, torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    assert load_file(file)["classifier.1.weight"].shape == (3, 512, 1, 1)


@pytest.mark.parametrize("head", ["mlp", "cosine"])
def test_programs_contain_every_head(head: str, tmp_path: Path, images: Tensor) -> None:
    original = build_classifier(TINY, head)
    assert export_model(original, "torchscript", tmp_path / "m.torchscript", images).num_same == 9


def build_broken_format(write: Any) -> ExportFormat:
    return ExportFormat(write, FORMATS["torchscript"].load, lambda _: "")


def test_an_export_that_computes_something_else_does_not_replace_a_file(
    tmp_path: Path, classifier: Classifier, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(original: Any, metadata: dict[str, str], file: Path) -> None:
        other = copy.deepcopy(original)
        with torch.no_grad():
            other.network.head[-1].bias.add_(torch.tensor([0.0, 0.0, 0.1]))
        FORMATS["torchscript"].write(other, metadata, file)

    file = tmp_path / "m.torchscript"
    file.write_text("an earlier export")
    monkeypatch.setattr(export, "FORMATS", {**FORMATS, "broken": build_broken_format(write)})
    with pytest.raises(ExportMismatchError) as caught:
        export_model(classifier, "broken", file, images)
    assert caught.value.check.max_logit_difference == pytest.approx(0.1, abs=1e-4)
    assert [path.name for path in tmp_path.iterdir()] == ["m.torchscript"]
    assert file.read_text() == "an earlier export"


def test_nan_is_not_a_rounding_difference(
    tmp_path: Path, classifier: Classifier, images: Tensor, monkeypatch: Any
) -> None:
    broken_format = build_broken_format(FORMATS["torchscript"].write)
    monkeypatch.setattr(
        export,
        "FORMATS",
        {
            "broken": ExportFormat(
                broken_format.write,
                lambda _: lambda pixels: torch.full((len(pixels), 3), torch.nan),
                broken_format.describe,
            )
        },
    )
    with pytest.raises(ExportMismatchError):
        export_model(classifier, "broken", tmp_path / "m.torchscript", images)


def test_a_network_that_torch_cannot_write_is_an_error_with_another_format(
    tmp_path: Path, classifier: Classifier, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(original: Classifier, metadata: dict[str, str], file: Path) -> None:
        raise torch.onnx.errors.OnnxExporterError("no such operator\nand more")

    monkeypatch.setattr(export, "FORMATS", {**FORMATS, "onnx": build_broken_format(write)})
    with pytest.raises(UserError, match=r"no such operator(.|\n)*--format torch_export"):
        export_model(classifier, "onnx", tmp_path / "m.onnx", images)


def test_a_network_that_is_too_large_for_onnx_is_an_error(
    tmp_path: Path, classifier: Classifier, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_formats, "MAX_ONNX_BYTES", 1000)
    with pytest.raises(UserError, match=r"too large for ONNX(.|\n)*--format torch_export"):
        export_model(classifier, "onnx", tmp_path / "m.onnx", images)


def test_check_images_are_the_runs_test_images_if_available_and_else_noise(tmp_path: Path) -> None:
    root = write_image_folder(tmp_path / "data", {"train": 1, "val": 60}, classes=("ants", "bees"))
    original = build_classifier("resnet18")
    recipe = compose_recipe(["dataset=hymenoptera", "strategy=scratch"])
    classifier = Classifier(original.network, original.classes, original.preprocessing, recipe)
    assert "noise, NOT on real ones" in load_check_images(classifier, [], None).description
    check_images = load_check_images(classifier, [], str(root))
    assert check_images.description == "100 real test images of hymenoptera"
    assert check_images.pixels.shape == (100, 3, 32, 32)
    paths = sorted(root.rglob("*.png"))[:2]
    assert load_check_images(classifier, paths, None).description == "2 real images"
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(UserError, match=r"text\.png"):
        load_check_images(classifier, [*paths, tmp_path / "text.png"], None)
