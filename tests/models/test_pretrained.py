"""Pretrained weights: packages, files, mirrors, and the preprocessing that belongs to them."""

from __future__ import annotations

import functools
import hashlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import models

from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.config.schema import BackboneConfig
from thaw.data.augmentation import center_crop
from thaw.data.image import wrap_image
from thaw.data.resizing import resize_image
from thaw.models.pretrained import load_pretrained


def compose_backbone(*overrides: str) -> BackboneConfig:
    return compose_recipe(overrides).backbone


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A real HTTP server over a folder: its address and the folder."""
    folder = tmp_path / "served"
    folder.mkdir()

    class QuietHandler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(
        ("127.0.0.1", 0), functools.partial(QuietHandler, directory=folder)
    ) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()


def test_packaged_weights_need_no_download_and_have_their_preprocessing(tmp_path: Path) -> None:
    source = load_pretrained(compose_backbone(), False, tmp_path, None)
    assert source.preprocessing.mean == (0.5, 0.5, 0.5)
    assert source.preprocessing.interpolation == "bicubic"
    assert len(source.classes) == 1000
    assert source.weights_info["hash"].startswith("57934424")
    random_model = timm.create_model("tf_efficientnet_lite0")
    assert not torch.equal(source.model.classifier.weight, random_model.classifier.weight)


def test_the_seed_decides_random_weights_and_the_preprocessing_is_that_of_the_weights(tmp_path: Path) -> None:
    torch.manual_seed(3)
    first = load_pretrained(compose_backbone(), True, tmp_path, None)
    torch.manual_seed(3)
    second = load_pretrained(compose_backbone(), True, tmp_path, None)
    assert torch.equal(first.model.conv_stem.weight, second.model.conv_stem.weight)
    assert first.preprocessing == load_pretrained(compose_backbone(), False, tmp_path, None).preprocessing
    assert first.weights_info == {"name": "none"}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_of_weights_is_loaded(tmp_path: Path, suffix: str) -> None:
    model = models.resnet18(weights=None)
    file = tmp_path / f"mine{suffix}"
    torch.save(model.state_dict(), file) if suffix == ".pth" else save_file(model.state_dict(), file)
    source = load_pretrained(compose_backbone("backbone=resnet18", f"backbone.weights={file}"), False, tmp_path, None)
    assert torch.equal(source.model.layer3[0].conv1.weight, model.layer3[0].conv1.weight)
    assert source.weights_info == {"name": file.name, "hash": hashlib.sha256(file.read_bytes()).hexdigest()}


def test_torchvision_weights_are_downloaded_from_a_mirror_and_verified(
    tmp_path: Path, server: tuple[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    model = models.resnet18(weights=None)
    torch.save(model.state_dict(), folder / "weights.pth")
    digest = hashlib.sha256((folder / "weights.pth").read_bytes()).hexdigest()[:8]
    (folder / "weights.pth").rename(folder / f"resnet18-{digest}.pth")
    published = models.ResNet18_Weights.IMAGENET1K_V1
    value = type(published.value)(
        f"https://nowhere.invalid/resnet18-{digest}.pth", published.transforms, published.meta
    )
    monkeypatch.setattr(published, "_value_", value)
    source = load_pretrained(compose_backbone("backbone=resnet18"), False, tmp_path / "cache", address)
    assert torch.equal(source.model.fc.weight, model.fc.weight)
    assert source.weights_info["hash"] == digest


def test_weights_that_cannot_be_downloaded_are_an_error_with_alternatives(tmp_path: Path) -> None:
    mirror = f"file://{tmp_path}/empty"
    backbone = BackboneConfig(
        library="torchvision", name="resnet18", weights="default", package=None, memory_format="auto"
    )
    published = models.ResNet18_Weights.IMAGENET1K_V1
    with pytest.MonkeyPatch.context() as patch:
        value = type(published.value)("http://127.0.0.1:9/resnet18-00000000.pth", published.transforms, published.meta)
        patch.setattr(published, "_value_", value)
        with pytest.raises(UserError) as caught:
            load_pretrained(backbone, False, tmp_path / "cache", mirror)
    message = str(caught.value)
    assert "resnet18 IMAGENET1K_V1" in message
    assert "http://127.0.0.1:9/resnet18-00000000.pth" in message
    assert "sha256:00000000" in message
    assert "backbone.weights=FILE" in message
    assert "data.mirror=URL" in message
    assert "backbone=efficientnet_lite0" in message


def test_unknown_weights_are_an_error_with_the_closest_name(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"backbone\.weights=IMAGENET1K_V2"):
        load_pretrained(compose_backbone("backbone=resnet50", "backbone.weights=IMAGENET1K_V3"), False, tmp_path, None)


@pytest.mark.parametrize("size", [(500, 375), (333, 500), (224, 224), (97, 641)])
def test_pixels_equal_those_of_torchvisions_transform(size: tuple[int, int]) -> None:
    weights = models.ResNet50_Weights.IMAGENET1K_V2
    source = load_pretrained(compose_backbone("backbone=resnet50", "strategy=scratch"), True, Path("unused"), None)
    assert source.preprocessing.resize == 232
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))
    preprocessing = replace(source.preprocessing, decoding="full")
    resized = torch.from_numpy(resize_image(wrap_image(image), preprocessing).copy()).permute(2, 0, 1)
    pixels = center_crop(resized, 224)
    normalized = weights.transforms()(image)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (weights.transforms().mean, weights.transforms().std))
    assert torch.equal(pixels, ((normalized * std + mean) * 255).round().to(torch.uint8))


@pytest.mark.parametrize("auxiliary", [True, False])
def test_a_file_with_or_without_auxiliary_classifiers_fits_googlenet(tmp_path: Path, auxiliary: bool) -> None:
    torch.manual_seed(0)
    weights_file = tmp_path / "googlenet.safetensors"
    model = models.googlenet(weights=None, aux_logits=auxiliary, init_weights=False)
    save_file(model.state_dict(), weights_file)
    overrides = ("backbone=torchvision", "backbone.name=googlenet", f"backbone.weights={weights_file}")
    source = load_pretrained(compose_backbone(*overrides), False, tmp_path, None)
    assert torch.equal(source.model.fc.weight, model.fc.weight)
    assert source.model.transform_input  # as the published weights expect their pixels
    assert not any(name.startswith("aux") for name, _ in source.model.named_parameters())


class LostConnectionError(Exception):
    """As the HTTP library of the hub's client raises it; it is no OSError."""


@pytest.mark.parametrize("message", ["", "Server disconnected\nwithout sending a response."])
def test_an_error_of_the_hubs_http_library_is_a_user_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str
) -> None:
    def create_model(*_: object, **__: object) -> None:
        raise LostConnectionError(message)

    monkeypatch.setattr("timm.create_model", create_model)
    monkeypatch.setattr("thaw.models.pretrained._find_host_error", lambda _: "")
    recipe = compose_recipe(["backbone=resnet18", "backbone.library=timm", "backbone.name=resnet18.a1_in1k"])
    with pytest.raises(LostConnectionError):
        load_pretrained(recipe.backbone, False, tmp_path, None)
    monkeypatch.setattr(LostConnectionError, "__module__", "httpx2._exceptions")
    with pytest.raises(UserError, match="could not be downloaded"):
        load_pretrained(recipe.backbone, False, tmp_path, None)
