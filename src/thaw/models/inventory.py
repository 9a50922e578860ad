"""All backbones: presets of conf/backbone, and the networks of torchvision and timm, with their figures."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

import yaml

from thaw.config import catalog
from thaw.config.errors import Problem, UserError, format_names
from thaw.config.presets import get_config_folder
from thaw.config.schema import BackboneConfig
from thaw.models.catalog import (
    MAX_COUNTED_MODELS,
    ModelInfo,
    find_packaged_weights,
    get_timm_model_info,
    get_torchvision_model_info,
)
from thaw.system.cache_folder import resolve_cache_dir

LIBRARIES = ("torchvision", "timm")


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
