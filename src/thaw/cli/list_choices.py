"""`thaw list [KIND] [PATTERN]`: list the choices that a recipe is composed of."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from thaw.cli.grammar import Verb
from thaw.cli.options import flag, path_argument
from thaw.cli.table import Column, build_console, print_csv, print_table
from thaw.config.catalog import get_config_folder, list_group_choices, read_description
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names
from thaw.models.catalog import (
    LIBRARIES,
    MAX_COUNTED_MODELS,
    BackboneInventory,
    ModelInfo,
    find_backbones,
    load_model_infos,
)

BACKBONES = "backbones"


@Verb(
    "list",
    summary="list backbones with their figures, strategies, data sets and all other choices",
    examples=("thaw list strategies", "thaw list backbones 'convnext*'"),
    description="Without KIND: the kinds and the choices of each. backbones: presets, and torchvision's classifiers "
    "with their published figures; with PATTERN, a quoted shell pattern, also those of timm. Every other kind: a line "
    "for each choice.\n\n"
    "GMACs are billions of multiply-adds for one image, which many papers call GFLOPs; top-1 is accuracy on ImageNet "
    "in percent. Both, and the number of parameters, are those of the default weights and of images of the size "
    'beside them. "weights here" names weights that need no network: those of an installed package, or files in '
    "thaw's cache, torch hub's or Hugging Face's. Nothing is downloaded.",
    paths=(
        path_argument("kind", "[KIND]", required=False),
        path_argument("pattern", "[PATTERN]", required=False),
    ),
    options=(flag("--csv", "comma-separated values; with backbones all of them, those of timm too"),),
)
def list_choices(kind: str | None, pattern: str | None, csv: bool) -> int:
    """Print the choices of `kind` that match `pattern` and return the exit status.

    Raises:
        UserError: if there is no such kind, or no choice that matches.
    """
    from thaw.cli.table import Column, print_rows

    groups = {re.sub("y$", "ie", group) + "s": group for group in list_group_choices()}  # strategies: strategy
    if kind is None:
        columns = [Column("kind", no_wrap=True), Column("in a recipe", no_wrap=True), Column("choices")]
        choices = list_group_choices()
        rows = [[name, f"{group}=NAME", ", ".join(choices[group])] for name, group in groups.items()]
        print_rows(columns, rows, csv)
        return EXIT_SUCCESS
    kind = _resolve_kind(kind, groups)
    if kind == BACKBONES:
        return print_backbones(pattern, csv)
    columns = [Column("name", no_wrap=True), Column("description")]
    print_rows(columns, _build_description_rows(kind, groups[kind], pattern), csv)
    return EXIT_SUCCESS


def _resolve_kind(name: str, groups: dict[str, str]) -> str:
    kinds_by_group = {group: kind for kind, group in groups.items()}
    if name in groups or name in kinds_by_group:
        return kinds_by_group.get(name, name)
    fix = f"thaw list {find_closest_name(name, groups) or ''}".strip()
    if find_closest_name(name, groups) is None and find_closest_name(name, kinds_by_group) is None:
        fix = f"thaw list backbones '*{name.strip('*')}*'" if re.search(r"[\d*]", name) else fix
    raise UserError("no such kind of choice.", [Problem(f"thaw list {name}", valid=format_names(groups), fix=fix)])


def _build_description_rows(kind: str, group: str, pattern: str | None) -> Sequence[Sequence[str]]:
    files = {file.stem: file for file in sorted((get_config_folder() / group).glob("*.yaml"))}
    matching_names = [name for name in files if pattern is None or fnmatchcase(name, pattern)]
    if not matching_names:
        fix = f"thaw list {kind} {find_closest_name(pattern or '', files) or ''}".strip()
        problem = Problem(f"thaw list {kind} {pattern}", valid=format_names(files), fix=fix)
        raise UserError(f"none of the {kind} matches.", [problem])
    return [[name, read_description(files[name])] for name in matching_names]


FIGURE_COLUMNS = [Column(heading, is_numeric=True) for heading in ("parameters", "top-1", "GMACs", "pixels")]
COLUMNS = [Column("name", no_wrap=True), *FIGURE_COLUMNS, Column("weights here")]
PRESET_COLUMNS = [Column("name", no_wrap=True), Column("network", no_wrap=True), *COLUMNS[1:]]
CSV_HEADER = ("name", "library", "overrides", "parameters", "top1", "gmacs", "pixels", "weights_here")


def print_backbones(pattern: str | None, as_csv: bool) -> int:
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
