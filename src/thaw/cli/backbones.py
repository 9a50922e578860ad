"""`thaw list backbones [PATTERN]`: backbones, what they cost, and whether their weights are on this machine."""

from __future__ import annotations

from collections.abc import Sequence

from thaw.cli.table import Column, print_csv, print_table
from thaw.config.errors import EXIT_SUCCESS
from thaw.models.catalog import (
    LIBRARIES,
    MAX_COUNTED_MODELS,
    BackboneInventory,
    ModelInfo,
    find_backbones,
    load_model_infos,
)
from thaw.system.terminal import build_console

FIGURE_COLUMNS = [Column(heading, is_numeric=True) for heading in ("parameters", "top-1", "GMACs", "pixels")]
COLUMNS = [Column("name", no_wrap=True), *FIGURE_COLUMNS, Column("weights here")]
PRESET_COLUMNS = [Column("name", no_wrap=True), Column("network", no_wrap=True), *COLUMNS[1:]]
CSV_HEADER = ("name", "library", "overrides", "parameters", "top1", "gmacs", "pixels", "weights_here")


def list_backbones(pattern: str | None, as_csv: bool) -> int:
    """Print the backbones whose names match `pattern`; without one, as a table, timm's are only counted.

    Raises:
        UserError: if no name matches.
    """
    inventory = find_backbones(pattern)
    if as_csv:
        _print_csv(inventory)
    else:
        _print_tables(inventory, pattern)
    return EXIT_SUCCESS


def _print_tables(inventory: BackboneInventory, pattern: str | None) -> None:
    presets, names, preset_infos = inventory.presets, inventory.library_names, inventory.load_preset_infos()
    if presets:
        kinds = {name: f"{preset.library} {preset.name}" for name, preset in presets.items()}
        rows = [[name, kinds[name], *_format_figures(info)] for name, info in preset_infos.items()]
        print_table(PRESET_COLUMNS, rows, "presets: backbone=NAME")
    libraries = [library for library in LIBRARIES if names[library] and (pattern or library == "torchvision")]
    infos_by_library = {library: load_model_infos(library, names[library]) for library in libraries}
    for library, infos in infos_by_library.items():
        build_console().print("\n" * (bool(presets) or library != libraries[0]), end="")
        rows = [[info.name, *_format_figures(info)] for info in infos]
        print_table(COLUMNS, rows, _format_overrides(library, "NAME"))
    _print_notes([*preset_infos.values(), *(info for infos in infos_by_library.values() for info in infos)])
    if note := _describe_omissions(names["timm"], infos_by_library.get("timm", []), pattern):
        build_console().print(note)


def _describe_omissions(timm_names: Sequence[str], timm_infos: Sequence[ModelInfo], pattern: str | None) -> str:
    """Return which networks of timm are not in the tables, or not counted."""
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


def _print_csv(inventory: BackboneInventory) -> None:
    rows = [_build_csv_row(info, f"backbone={name}", name) for name, info in inventory.load_preset_infos().items()]
    for library, names in inventory.library_names.items():
        infos = load_model_infos(library, names)
        rows += [_build_csv_row(info, _format_overrides(library, info.name), info.name) for info in infos]
    print_csv([Column(heading) for heading in CSV_HEADER], rows)


def _build_csv_row(info: ModelInfo, overrides: str, name: str) -> list[str]:
    gmacs = "" if info.gmacs is None else f"{info.gmacs:.6g}"
    figures = ["" if value is None else str(value) for value in (info.num_parameters, info.top1, gmacs, info.size)]
    return [name, info.library, overrides, *figures, info.local_weights]
