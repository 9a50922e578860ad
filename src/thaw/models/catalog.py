"""List the classifiers that fit a pattern, with facts that need no weights: published figures, cost, local weights."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import yaml

from thaw.config import catalog
from thaw.config.catalog import get_config_folder
from thaw.config.consistency import has_weights_path
from thaw.config.errors import Problem, UserError, format_names
from thaw.config.schema import BackboneConfig, WeightsPackage
from thaw.models.cost import compute_cost
from thaw.system.cache_folder import resolve_cache_dir

MAX_COUNTED_MODELS = 40  # timm's networks take about 0.3 s each
HUB_FILES = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors", "open_clip_pytorch_model.bin")
LIBRARIES = ("torchvision", "timm")


@dataclass(frozen=True)
class ModelInfo:
    """A classifier of a library; None where a value is not known.

    `top1` (percent on ImageNet) and `gmacs` (billions of multiply-adds per image) belong to the default weights and to
    square images of `size` pixels. `local_weights` says which weights are on this machine, and where.
    """

    library: str
    name: str
    num_parameters: int | None = None
    top1: float | None = None
    gmacs: float | None = None
    size: int | None = None
    local_weights: str = ""


def get_torchvision_model_info(name: str, cache_dir: Path) -> ModelInfo:
    """Return the figures that torchvision publishes with its default weights."""
    from torchvision import models

    weights_enum = models.get_model_weights(name)
    if not len(weights_enum):
        return ModelInfo("torchvision", name)
    meta: dict[str, Any] = weights_enum.DEFAULT.meta
    size = weights_enum.DEFAULT.transforms().crop_size[0]
    top1 = meta["_metrics"].get("ImageNet-1K", {}).get("acc@1")
    local_weights = ", ".join(_find_local_weights(weights_enum, cache_dir))
    return ModelInfo("torchvision", name, meta["num_params"], top1, meta["_ops"], size, local_weights)


def _find_local_weights(candidates: Iterable[Any], cache_dir: Path) -> Iterator[str]:
    folders = {"cache": cache_dir / "weights", "torch hub": Path(torch.hub.get_dir()) / "checkpoints"}
    for weights in candidates:
        for location, folder in folders.items():
            if (folder / Path(weights.url).name).is_file():
                yield f"{weights.name} ({location})"


def describe_missing_weights(backbone: BackboneConfig, cache_dir: Path) -> str:
    """Describe the weights of `backbone` that would be downloaded, and to where; empty where they are here."""
    if has_weights_path(backbone) or backbone.weights == "none":
        return ""
    if backbone.package and find_packaged_weights(backbone.package):
        return ""
    if backbone.package:
        return f"the package {backbone.package.distribution}"
    if backbone.library == "timm":
        local_weights = get_timm_model_info(backbone.name, cache_dir, with_cost=False).local_weights
        return "" if local_weights else f"timm's {backbone.name} in {cache_dir / 'weights' / 'timm'}"
    from torchvision import models

    weights_enum = models.get_model_weights(backbone.name)
    weights = weights_enum.DEFAULT if backbone.weights == "default" else weights_enum[backbone.weights]
    file = cache_dir / "weights" / Path(weights.url).name
    return "" if any(_find_local_weights([weights], cache_dir)) else f"{weights.url} as {file}"


def get_timm_model_info(name: str, cache_dir: Path, with_cost: bool) -> ModelInfo:
    """Return what timm knows of a classifier; its package holds no accuracies.

    `with_cost` builds the network on torch's meta device to count parameters and multiply-adds; they stay unknown where
    it cannot be built there.
    """
    import timm

    config = timm.get_pretrained_cfg(name)
    size = config.input_size[-1] if config else None
    local_weights = _find_in_hub_cache(config.hf_hub_id if config else None, cache_dir)
    info = ModelInfo("timm", name, size=size, local_weights=local_weights)
    return _add_cost(info) if with_cost and size else info


def _add_cost(info: ModelInfo) -> ModelInfo:
    import timm

    try:
        with torch.device("meta"), warnings.catch_warnings(action="ignore"):
            num_parameters, multiply_adds = compute_cost(timm.create_model(info.name, pretrained=False), info.size or 0)
    except Exception:  # some of the 1,400 constructors compute with values, and fail in many ways
        return info
    return replace(info, num_parameters=num_parameters, gmacs=multiply_adds / 1e9)


def _find_in_hub_cache(repo_id: str | None, cache_dir: Path) -> str:
    """Return which cache holds the weights of `repo_id`.

    thaw itself does not read Hugging Face's own cache, but takes a file from there as backbone.weights=FILE.
    """
    from huggingface_hub import constants, try_to_load_from_cache

    folders = {"cache": str(cache_dir / "weights" / "timm"), "Hugging Face cache": constants.HF_HUB_CACHE}
    for location, folder in folders.items() if repo_id else ():
        if any(isinstance(try_to_load_from_cache(repo_id, file, cache_dir=folder), str) for file in HUB_FILES):
            return location
    return ""


def find_packaged_weights(package: WeightsPackage) -> str:
    """Describe the installed distribution that holds the weights; empty where it is not installed."""
    module_name, path_in_package = package.file.split("/", 1)
    spec = find_spec(module_name)
    if spec is None or spec.origin is None:
        return ""
    has_file = (Path(spec.origin).parent / path_in_package).is_file()
    return f"package {package.distribution}" if has_file else ""


@dataclass(frozen=True)
class BackboneInventory:
    """Backbones whose names match a pattern: presets by name, and the names of each library's other networks."""

    presets: dict[str, BackboneConfig]
    library_names: dict[str, list[str]]

    def load_preset_infos(self) -> dict[str, ModelInfo]:
        """Return the figures of the presets by name."""
        infos = {name: load_model_infos(preset.library, [preset.name])[0] for name, preset in self.presets.items()}
        packages = {name: preset.package for name, preset in self.presets.items() if preset.package}
        weights = {name: find_packaged_weights(package) for name, package in packages.items()}
        return {
            name: replace(info, local_weights=weights.get(name, info.local_weights)) for name, info in infos.items()
        }


def find_backbones(pattern: str | None = None) -> BackboneInventory:
    """Return the backbones whose names match the shell pattern `pattern`, all by default.

    Raises:
        UserError: if no name matches.
    """
    all_presets = _load_presets()
    presets = {name: preset for name, preset in all_presets.items() if _is_match(pattern, name, preset.name)}
    names = {library: _list_other_names(library, presets.values(), pattern) for library in LIBRARIES}
    if not presets and not any(names.values()):
        raise _build_no_match_error(pattern or "", all_presets)
    return BackboneInventory(presets, names)


def load_model_infos(library: str, names: Sequence[str]) -> list[ModelInfo]:
    """Return the figures of a library's networks; those of timm are counted if they are few."""
    cache_dir = resolve_cache_dir(None)
    if library == "torchvision":
        return [get_torchvision_model_info(name, cache_dir) for name in names]
    return [get_timm_model_info(name, cache_dir, len(names) <= MAX_COUNTED_MODELS) for name in names]


def _list_other_names(library: str, presets: Iterable[BackboneConfig], pattern: str | None) -> list[str]:
    preset_names = {preset.name for preset in presets if preset.library == library}
    names = catalog.list_backbones(library) - preset_names
    return sorted(name for name in names if _is_match(pattern, name))


def _is_match(pattern: str | None, *names: str) -> bool:
    return pattern is None or any(fnmatchcase(name.lower(), pattern.lower()) for name in names)


def _load_presets() -> dict[str, BackboneConfig]:
    """Return the files of conf/backbone that name one network; torchvision.yaml and timm.yaml leave the name open."""
    files = sorted((get_config_folder() / "backbone").glob("*.yaml"))
    configs = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in files}
    return {name: BackboneConfig.model_validate(config) for name, config in configs.items() if config["name"] != "???"}


def _build_no_match_error(pattern: str, presets: Iterable[str]) -> UserError:
    stem = pattern.lower().strip("*")
    names = sorted({*presets, *(name for library in LIBRARIES for name in catalog.list_backbones(library))})
    partial_matches = [name for name in names if stem and stem in name.lower()]
    close_matches = difflib.get_close_matches(stem, names, n=6, cutoff=0.5)
    fix = f"thaw list backbones {close_matches[0]}" if close_matches else ""
    fix = f"thaw list backbones '*{stem}*'" if partial_matches else fix
    valid = format_names(partial_matches[:6] or close_matches)
    problem = Problem(f"thaw list backbones '{pattern}'", "no such name", valid, fix)
    return UserError(f"none of {len(names)} backbones matches.", [problem])
