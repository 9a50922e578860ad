"""Heads: their shapes, their initialization, and a run with each."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any, get_args

import pytest
import timm
import torch
from pydantic import TypeAdapter
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision import models

from tests.conftest import ROOT, TINY, get_only_run
from thaw.cli.train import launch
from thaw.config.errors import UserError
from thaw.config.schema import Activation, BackboneConfig, HeadConfig
from thaw.data.preprocessing import Preprocessing
from thaw.models.factory import build_network, uninitialized_network
from thaw.models.head import ACTIVATIONS, CosineLinear, build_head, get_linear_layers, init_head
from thaw.models.pretrained import PretrainedModel, load_pretrained
from thaw.models.source_rows import describe_rows, init_from_rows, match_rows_to_classes

HEAD_NAMES = sorted(path.stem for path in (ROOT / "conf" / "head").glob("*.yaml"))
IMAGENET = (
    "ant, emmet, pismire",
    "bee",
    "hotdog, hot dog, red hot",
    "Afghan hound, Afghan",
    "crane",
    "crane",
    "Afghan, rug",
    "maillot",
    "maillot, tank suit",
)
SQUARE = Preprocessing(64, 64, "bilinear", (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


def build_head_config(kind: str, **values: Any) -> Any:
    defaults: dict[str, dict[str, Any]] = {
        "linear": {},
        "mlp": {"hidden": [8], "activation": "relu"},
        "cosine": {"scale": 10.0, "learn_scale": True},
        "source_rows": {"rows": {}, "rest": "torch"},
    }
    start = {} if kind == "source_rows" else {"initialization": "torch"}
    return TypeAdapter(HeadConfig).validate_python(
        {"kind": kind, "dropout": 0.0, "replaces": "last", **start, **defaults[kind], **values}
    )


def build_pretrained(model: nn.Module, classes: tuple[str, ...] = ()) -> PretrainedModel:
    return PretrainedModel(model, SQUARE, classes, {"name": "test"})


def count_parameters(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())


def test_the_head_of_the_caltech_tutorial_on_vgg16_has_as_many_parameters_as_there() -> None:
    with torch.device("meta"):
        tutorial = build_head_config("mlp", hidden=[256], dropout=0.4)
        network = build_network(
            build_pretrained(models.vgg16()), tutorial, [str(number) for number in range(100)], SQUARE
        )
    assert (count_parameters(network), count_parameters(network.head)) == (135_335_076, 1_074_532)
    assert [type(layer) for layer in network.head.children()] == [nn.Linear, nn.ReLU, nn.Dropout, nn.Linear]


@pytest.mark.parametrize(
    ("name", "width"),
    [("vgg11", 512 * 7 * 7), ("squeezenet1_1", 512), ("convnext_tiny", 768), ("resnet18", 512), ("timm_swin", 768)],
)
def test_a_head_that_replaces_the_whole_classifier_takes_its_input_width(name: str, width: int) -> None:
    with torch.device("meta"):
        if name == "timm_swin":
            model: nn.Module = timm.create_model("swin_tiny_patch4_window7_224", img_size=64)
        else:
            model = models.get_model(name, weights=None)
        network = uninitialized_network(
            build_pretrained(model), build_head_config("linear", replaces="classifier"), 3, SQUARE
        )
        assert network(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    assert [layer.in_features for layer in get_linear_layers(network.head)] == [width]


def test_hidden_layers_have_the_widths_of_the_recipe() -> None:
    module = build_head(build_head_config("mlp", hidden=[16, 8], activation="gelu", dropout=0.0), 4, 3)
    assert [tuple(layer.weight.shape) for layer in get_linear_layers(module)] == [(16, 4), (8, 16), (3, 8)]
    assert [type(layer) for layer in module.children()] == [nn.Linear, nn.GELU, nn.Linear, nn.GELU, nn.Linear]


def test_every_activation_of_the_schema_has_a_module() -> None:
    assert set(ACTIVATIONS) == set(get_args(Activation))


def test_cosine_logits_depend_on_directions_only() -> None:
    torch.manual_seed(0)
    module, features = CosineLinear(6, 3, 7.0, learn_scale=False), torch.randn(5, 6)
    cosines = F.cosine_similarity(features[:, None], module.vectors.weight[None], dim=2)
    assert torch.allclose(module(features), 7 * cosines, atol=1e-6)
    assert torch.allclose(module(features), module(1000 * features), atol=1e-5)


@pytest.mark.parametrize("learn_scale", [True, False])
def test_the_scale_of_cosines_is_a_parameter_if_it_is_learned_and_is_in_the_state_dict(learn_scale: bool) -> None:
    module = build_head(build_head_config("cosine", scale=4.0, learn_scale=learn_scale), 6, 3)
    module(torch.randn(2, 6)).logsumexp(1).sum().backward()
    parameters = dict(module.named_parameters())
    assert ("0.scale" in parameters) == learn_scale
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in parameters.values())
    assert module.state_dict()["0.scale"] == 4.0


@pytest.mark.parametrize(("kind", "std"), [("xavier", (2 / 1100) ** 0.5), ("kaiming", (2 / 1000) ** 0.5)])
def test_initial_weights_have_the_published_standard_deviation_and_no_bias(kind: str, std: float) -> None:
    torch.manual_seed(0)
    module = build_head(build_head_config("linear"), 1000, 100)
    init_head(module, kind)  # type: ignore[arg-type]
    (layer,) = get_linear_layers(module)
    assert layer.weight.std().item() == pytest.approx(std, rel=0.02)
    assert layer.bias.abs().max() == 0
    bound = std * 3**0.5
    assert (layer.weight.abs().max() <= bound) == (kind == "xavier"), "uniform has bounds, normal has none"


def test_zero_initialization_gives_equal_logits_and_gradients_of_hidden_layers() -> None:
    torch.manual_seed(0)
    module = build_head(build_head_config("mlp", hidden=[8]), 4, 3)
    init_head(module, "zero")
    assert module(torch.randn(2, 4)).abs().max() == 0
    module(torch.randn(2, 4)).sum().backward()
    first, last = get_linear_layers(module)
    assert first.weight.abs().min() > 0
    assert last.weight.grad is not None
    assert last.weight.grad.abs().max() > 0


def test_torchs_own_initialization_draws_no_new_weights() -> None:
    module = build_head(build_head_config("linear"), 6, 3)
    before = [weight.clone() for weight in module.parameters()]
    init_head(module, "torch")
    assert all(torch.equal(old, new) for old, new in zip(before, module.parameters(), strict=True))


@pytest.mark.parametrize("name", ["bee", "Bee", "BEE"])
def test_case_is_ignored(name: str) -> None:
    assert match_rows_to_classes(build_head_config("source_rows"), [name, "other"], IMAGENET) == {name: 1}


@pytest.mark.parametrize("name", ["hotdog", "hot dog", "hot-dog", "Hot_Dog", "red hot"])
def test_any_synonym_matches_a_row(name: str) -> None:
    assert match_rows_to_classes(
        build_head_config("source_rows", rows={"food": name}), ["food", "other"], IMAGENET
    ) == {"food": 2}


def test_a_whole_name_precedes_a_first_synonym_and_that_precedes_the_others() -> None:
    rows = {"swimwear": "maillot", "other": "maillot, tank suit"}
    classes = ["swimwear", "other", "afghan", "afghan_hound"]
    assert match_rows_to_classes(build_head_config("source_rows", rows=rows), classes, IMAGENET) == {
        "swimwear": 7,
        "other": 8,
        "afghan": 6,
        "afghan_hound": 3,
    }


def test_classes_without_a_configured_name_use_their_own_and_null_gives_no_row() -> None:
    rows = {"ants": "ant", "bee": None}
    assert match_rows_to_classes(
        build_head_config("source_rows", rows=rows), ["ants", "bee", "crayon", "hotdog"], IMAGENET
    ) == {
        "ants": 0,
        "hotdog": 2,
    }


def test_hotdog_has_its_row_in_both_libraries() -> None:
    classes = models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"]
    assert match_rows_to_classes(build_head_config("source_rows"), ["hotdog", "not-hotdog"], classes) == {"hotdog": 934}
    timm_classes = timm.data.ImageNetInfo().label_descriptions()
    assert match_rows_to_classes(build_head_config("source_rows"), ["hot-dog", "not-hot-dog"], timm_classes) == {
        "hot-dog": 934
    }


INVALID_ROWS: list[tuple[dict[str, str | None], list[str], list[str]]] = [
    (
        {"food": "hotdgo"},
        ["food", "bee"],
        ["head.rows.food=hotdgo", "9 classes of the source", "head.rows.food=hotdog"],
    ),
    ({"foood": "hotdog"}, ["food", "bee"], ["'foood', no class of the data set", "food, bee", "head.rows.food=hotdog"]),
    ({}, ["crane", "bee"], ["the class crane has 2 source classes", "crane | crane", "head.rows.crane=NAME", "null"]),
    ({}, ["A", "B"], ["none of A, B", "ant, bee, hotdog", "head.rows.A=NAME, or head=linear"]),
    ({"bee": None}, ["A", "bee"], ["none of A, bee"]),
]


@pytest.mark.parametrize(("rows", "classes", "messages"), INVALID_ROWS)
def test_names_that_match_no_class_are_errors_with_the_fix(
    rows: dict[str, str | None], classes: list[str], messages: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        match_rows_to_classes(build_head_config("source_rows", rows=rows), classes, IMAGENET)
    assert [message for message in messages if message not in str(caught.value)] == [], str(caught.value)


def test_all_wrong_names_are_reported_together() -> None:
    with pytest.raises(UserError) as caught:
        match_rows_to_classes(
            build_head_config("source_rows", rows={"A": "hotdgo", "Z": "bee", "B": "be"}), ["A", "B"], IMAGENET
        )
    assert len(caught.value.problems) == 3


def test_classes_with_rows_have_the_logits_of_the_source() -> None:
    torch.manual_seed(0)
    model = models.resnet18(weights=None).eval()
    classes = tuple(models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    rows = build_head_config("source_rows", rows={"ants": "ant", "food": "hotdog"}, rest="kaiming")
    network = build_network(build_pretrained(model, classes), rows, ["ants", "food", "other"], SQUARE).eval()
    images = torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        logits, source_logits = network(images), model(images)
    assert torch.allclose(logits[:, :2], source_logits[:, [classes.index("ant"), 934]], atol=1e-5)


def test_rows_of_a_convolution_initialize_a_linear_layer() -> None:
    torch.manual_seed(0)
    model = models.squeezenet1_1(weights=None).eval()
    classes = tuple(models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"])
    network = build_network(
        build_pretrained(model, classes), build_head_config("source_rows"), ["bee", "other"], SQUARE
    )
    (layer,) = get_linear_layers(network.head)
    row = classes.index("bee")
    assert torch.equal(layer.weight[0], model.classifier[1].weight[row].flatten())
    assert layer.bias[0] == model.classifier[1].bias[row]


@pytest.mark.parametrize(("rest", "factor"), [("torch", 1.0), ("xavier", 1.0), ("kaiming", 1.0), ("zero", 0.0)])
def test_the_other_rows_have_the_standard_deviation_of_the_source(rest: Any, factor: float) -> None:
    torch.manual_seed(0)
    layer, last = nn.Linear(400, 51), nn.Linear(400, 20)
    nn.init.normal_(last.weight, std=0.3)
    init_from_rows(layer, {50: 7}, last, rest)
    assert torch.equal(layer.weight[50], last.weight[7])
    assert layer.bias[50] == last.bias[7]
    assert layer.weight[:50].std().item() == pytest.approx(0.3 * factor, rel=0.02)
    assert (layer.bias[:50].abs().max() == 0) == (rest != "torch")


def test_a_last_layer_of_another_width_is_an_error() -> None:
    with pytest.raises(UserError, match=r"no row per class(.|\n)*20 x 5(.|\n)*N x 4"):
        init_from_rows(nn.Linear(4, 2), {0: 1}, nn.Linear(5, 20), "torch")


def test_one_line_describes_which_classes_get_which_rows() -> None:
    description = describe_rows(
        build_head_config("source_rows", rows={"ants": "ant"}, rest="zero"), ["ants", "bee", "wasp"], IMAGENET
    )
    assert description == (
        "head: 2 of 3 classes start from rows of the source: ants <- 'ant, emmet, pismire', bee <- 'bee'; "
        "random (zero): wasp"
    )


@pytest.mark.parametrize("library", ["torchvision", "timm"])
def test_a_file_with_other_classes_has_no_rows_for_a_head(library: str, tmp_path: Path) -> None:
    model = timm.create_model("resnet18", num_classes=7) if library == "timm" else models.resnet18(num_classes=7)
    file = tmp_path / "seven.pth"
    torch.save(model.state_dict(), file)
    backbone = BackboneConfig(
        library=library,  # type: ignore[arg-type]
        name="resnet18",
        weights=str(file),
        package=None,
        memory_format="auto",
    )
    loaded = load_pretrained(backbone, False, tmp_path, None)
    assert "none of this shape" in loaded.weights_info["classifier"]
    with pytest.raises(UserError, match="1000 rows and no names"):
        build_network(loaded, build_head_config("source_rows"), ["hotdog", "other"], SQUARE)


@pytest.mark.parametrize("name", HEAD_NAMES)
def test_a_run_with_each_head_is_loaded_and_gives_its_recorded_predictions(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from thaw.inference.load import load_checkpoint

    overrides = ["head.rows={A: ant, D: hot dog}"] if name == "source_rows" else []
    assert launch([*TINY, f"head={name}", *overrides, "trainer.epochs=1", f"output_dir={tmp_path}"]) == 0
    if overrides:
        assert "2 of 4 classes start from rows of the source: A <- 'ant, emmet, pismire'" in capsys.readouterr().out
    run = get_only_run(tmp_path)
    classifier = load_checkpoint(run)
    with (run / "predictions.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    best = classifier.predict_proba(load_images(classifier, [row["path"] for row in rows])).max(1)
    assert [classifier.classes[index] for index in best.indices] == [row["prediction"] for row in rows]
    assert best.values.tolist() == pytest.approx([float(row["probability"]) for row in rows], abs=1e-4)


def load_images(classifier: Any, paths: list[str]) -> Tensor:
    """Load test images of a run, uint8 [n, 3, size, size]."""
    from thaw.data.augmentation import center_crop
    from thaw.data.factory import load_samples
    from thaw.data.image import decode_image
    from thaw.data.resizing import resize_image

    recipe, preprocessing = classifier.recipe, classifier.preprocessing
    root = load_samples(recipe).root
    arrays = [resize_image(decode_image(root / path), preprocessing).copy() for path in paths]
    images = [torch.from_numpy(array).permute(2, 0, 1) for array in arrays]
    return torch.stack([center_crop(image, preprocessing.size) for image in images])
