"""`thaw list backbones [PATTERN]`: backbones, what they cost, and whether their weights are on this machine."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import yaml

from thaw.cli.table import Column, build_console, print_csv, print_table
from thaw.config import catalog
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, format_names
from thaw.config.presets import get_config_folder
from thaw.config.schema import BackboneConfig

if TYPE_CHECKING:
    from thaw.models.catalog import ModelInfo

LIBRARIES = ("torchvision", "timm")
FIGURE_COLUMNS = [Column(heading, is_numeric=True) for heading in ("parameters", "top-1", "GMACs", "pixels")]
COLUMNS = [Column("name", no_wrap=True), *FIGURE_COLUMNS, Column("weights here")]
PRESET_COLUMNS = [Column("name", no_wrap=True), Column("network", no_wrap=True), *COLUMNS[1:]]
CSV_HEADER = ("name", "library", "overrides", "parameters", "top1", "gmacs", "pixels", "weights_here")


def list_backbones(pattern: str | None, as_csv: bool) -> int:
    """Print the backbones whose names match `pattern`; without one, as a table, timm's are only counted.

    Raises:
        UserError: if no name matches.
    """
    all_presets = _load_presets()
    presets = {name: preset for name, preset in all_presets.items() if _is_match(pattern, name, preset.name)}
    names = {library: _list_names_without_preset(library, presets, pattern) for library in LIBRARIES}
    if not presets and not any(names.values()):
        raise _build_no_match_error(pattern or "", all_presets)
    if as_csv:
        _print_csv(presets, names)
    else:
        _print_tables(presets, names, pattern)
    return EXIT_SUCCESS


def _list_names_without_preset(library: str, presets: dict[str, BackboneConfig], pattern: str | None) -> list[str]:
    preset_names = {preset.name for preset in presets.values() if preset.library == library}
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


def _print_tables(presets: dict[str, BackboneConfig], names: dict[str, list[str]], pattern: str | None) -> None:
    preset_infos = _load_preset_infos(presets)
    if presets:
        kinds = {name: f"{preset.library} {preset.name}" for name, preset in presets.items()}
        rows = [[name, kinds[name], *_format_figures(info)] for name, info in preset_infos.items()]
        print_table(PRESET_COLUMNS, rows, "presets: backbone=NAME")
    libraries = [library for library in LIBRARIES if names[library] and (pattern or library == "torchvision")]
    infos_by_library = {library: _load_model_infos(library, names[library]) for library in libraries}
    for library, infos in infos_by_library.items():
        build_console().print("\n" * (bool(presets) or library != libraries[0]), end="")
        rows = [[info.name, *_format_figures(info)] for info in infos]
        print_table(COLUMNS, rows, _format_overrides(library, "NAME"))
    _print_notes([*preset_infos.values(), *(info for infos in infos_by_library.values() for info in infos)])
    if note := _describe_omissions(names["timm"], infos_by_library.get("timm", []), pattern):
        build_console().print(note)


def _describe_omissions(timm_names: Sequence[str], timm_infos: Sequence[ModelInfo], pattern: str | None) -> str:
    """Return which networks of timm are not in the tables, or not counted."""
    from thaw.models.catalog import MAX_COUNTED_MODELS

    if pattern is None:
        return f"timm has {len(timm_names)} more: thaw list backbones 'convnext*' lists those with such a name"
    if len(timm_names) > MAX_COUNTED_MODELS:
        matches = f"{len(timm_names)} networks of timm match; parameters and GMACs are counted for at most"
        fix = f"narrow the pattern, or thaw inspect {_format_overrides('timm', 'NAME')}"
        return f"{matches} {MAX_COUNTED_MODELS}: {fix}"
    if any(info.num_parameters is None for info in timm_infos):
        return "not counted: networks that cannot be built on torch's meta device; thaw inspect counts them"
    return ""


def _format_overrides(library: str, name: str) -> str:
    return f"backbone={library} backbone.name={name}"


def _load_model_infos(library: str, names: Sequence[str]) -> list[ModelInfo]:
    from thaw.models.catalog import MAX_COUNTED_MODELS, get_timm_model_info, get_torchvision_model_info
    from thaw.system.cache_folder import resolve_cache_dir

    cache_dir = resolve_cache_dir(None)
    if library == "torchvision":
        return [get_torchvision_model_info(name, cache_dir) for name in names]
    return [get_timm_model_info(name, cache_dir, len(names) <= MAX_COUNTED_MODELS) for name in names]


def _load_preset_infos(presets: dict[str, BackboneConfig]) -> dict[str, ModelInfo]:
    from dataclasses import replace

    from thaw.models.catalog import find_packaged_weights

    infos = {name: _load_model_infos(preset.library, [preset.name])[0] for name, preset in presets.items()}
    weight_locations = {
        name: find_packaged_weights(preset.package) for name, preset in presets.items() if preset.package
    }
    return {
        name: replace(preset, local_weights=weight_locations.get(name, preset.local_weights))
        for name, preset in infos.items()
    }


def _format_figures(info: ModelInfo) -> list[str]:
    parameters = "-" if info.num_parameters is None else f"{info.num_parameters:,}"
    top1, gmacs = (
        "-" if value is None else f"{value:.{digits}f}" for value, digits in ((info.top1, 1), (info.gmacs, 2))
    )
    return [parameters, top1, gmacs, str(info.size or "-"), info.local_weights or "-"]


def _print_notes(infos: Sequence[ModelInfo]) -> None:
    print_line = build_console().print
    print_line("\nGMACs: billions of multiply-adds for one image, often called GFLOPs; pixels: the side of the image")
    if any(info.top1 is None and info.library == "timm" for info in infos):
        print_line("top-1: unknown for networks of timm, because its package carries no accuracies")
    if any(info.local_weights == "Hugging Face cache" for info in infos):
        print_line("weights in Hugging Face's own cache are used with backbone.weights=FILE")


def _print_csv(presets: dict[str, BackboneConfig], names: dict[str, list[str]]) -> None:
    rows = [_build_csv_row(info, f"backbone={name}", name) for name, info in _load_preset_infos(presets).items()]
    for library in LIBRARIES:
        rows += [
            _build_csv_row(info, _format_overrides(library, info.name), info.name)
            for info in _load_model_infos(library, names[library])
        ]
    print_csv([Column(heading) for heading in CSV_HEADER], rows)


def _build_csv_row(info: ModelInfo, overrides: str, name: str) -> list[str]:
    gmacs = "" if info.gmacs is None else f"{info.gmacs:.6g}"
    figures = ["" if value is None else str(value) for value in (info.num_parameters, info.top1, gmacs, info.size)]
    return [name, info.library, overrides, *figures, info.local_weights]
