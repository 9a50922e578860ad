"""`thaw list backbones [PATTERN]`: what there is to start from, what it costs, and whether it needs a network."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

import yaml

from thaw.commands.table import Column, console, print_csv, print_table
from thaw.config.catalog import backbone_names
from thaw.config.faults import DONE, Fault, UserFault, listing
from thaw.config.schema import Backbone

if TYPE_CHECKING:
    from thaw.network.known import Known

LIBRARIES = ("torchvision", "timm")
FIGURES = [Column(one, number=True) for one in ("parameters", "top-1", "GMACs", "pixels")]
COLUMNS = [Column("name", keep=True), *FIGURES, Column("weights here")]
PRESET_COLUMNS = [Column("name", keep=True), Column("is", keep=True), *COLUMNS[1:]]
IN_CSV = ("name", "library", "ask", "parameters", "top1", "gmacs", "pixels", "weights_here")


def run(folder: Path, pattern: str | None, as_csv: bool) -> int:
    """Prints the backbones whose names fit `pattern`; without one, on the screen, those of timm are counted alone.

    Raises:
        UserFault: where the pattern fits none.
    """
    presets = {name: one for name, one in _presets(folder).items() if _fits(pattern, name, one.name)}
    names = {library: _others(library, presets, pattern) for library in LIBRARIES}
    if not presets and not any(names.values()):
        raise _none_fits(pattern or "", _presets(folder))
    if as_csv:
        _print_csv(presets, names)
    else:
        _print_tables(presets, names, pattern)
    return DONE


def _others(library: str, presets: dict[str, Backbone], pattern: str | None) -> list[str]:
    shown = {one.name for one in presets.values() if one.library == library}
    return sorted(name for name in backbone_names(library) if _fits(pattern, name) and name not in shown)


def _fits(pattern: str | None, *names: str) -> bool:
    return pattern is None or any(fnmatchcase(name.lower(), pattern.lower()) for name in names)


def _presets(folder: Path) -> dict[str, Backbone]:
    """The files of conf/backbone that name one network; torchvision.yaml and timm.yaml leave that open."""
    values = {file.stem: yaml.safe_load(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.yaml"))}
    return {name: Backbone.model_validate(one) for name, one in values.items() if one["name"] != "???"}


def _none_fits(pattern: str, presets: Iterable[str]) -> UserFault:
    stem = pattern.lower().strip("*")
    names = sorted({*presets, *(name for library in LIBRARIES for name in backbone_names(library))})
    inside = [name for name in names if stem and stem in name.lower()]
    near = difflib.get_close_matches(stem, names, n=6, cutoff=0.5)
    fix = f"thaw list backbones '*{stem}*'" if inside else f"thaw list backbones {near[0]}" if near else ""
    fault = Fault(f"thaw list backbones '{pattern}'", "no such name", listing(inside[:6] or near), fix)
    return UserFault(f"none of {len(names)} backbones fits.", [fault])


def _print_tables(presets: dict[str, Backbone], names: dict[str, list[str]], pattern: str | None) -> None:
    from thaw.network.known import MOST_COUNTED

    known_presets = _known_presets(presets)
    if presets:
        rows = [[name, f"{presets[name].library} {one.name}", *_figures(one)] for name, one in known_presets.items()]
        print_table(PRESET_COLUMNS, rows, "presets: backbone=NAME")
    shown = [library for library in LIBRARIES if names[library] and (pattern or library == "torchvision")]
    known = {library: _known(library, names[library]) for library in shown}
    for library, found in known.items():
        console().print("\n" * (bool(presets) or library != shown[0]), end="")
        print_table(COLUMNS, [[one.name, *_figures(one)] for one in found], _ask(library, "NAME"))
    _print_notes([*known_presets.values(), *(one for found in known.values() for one in found)])
    if pattern is None:
        console().print(f"timm has {len(names['timm'])} more: thaw list backbones 'convnext*' lists those of that name")
    elif len(names["timm"]) <= MOST_COUNTED and any(one.parameters is None for one in known.get("timm", ())):
        console().print("not counted: what cannot be built on torch's meta device; thaw inspect counts it")
    elif len(names["timm"]) > MOST_COUNTED:
        many = f"{len(names['timm'])} networks of timm fit; parameters and GMACs are counted for {MOST_COUNTED} at most"
        console().print(f"{many}: narrow the pattern, or thaw inspect {_ask('timm', 'NAME')}")


def _ask(library: str, name: str) -> str:
    return f"backbone={library} backbone.name={name}"


def _known(library: str, names: Sequence[str]) -> list[Known]:
    from thaw.data.cache import cache_folder
    from thaw.network.known import MOST_COUNTED, of_timm, of_torchvision

    cache = cache_folder(None)
    if library == "torchvision":
        return [of_torchvision(name, cache) for name in names]
    return [of_timm(name, cache, len(names) <= MOST_COUNTED) for name in names]


def _known_presets(presets: dict[str, Backbone]) -> dict[str, Known]:
    from dataclasses import replace

    from thaw.network.known import packaged

    known = {name: _known(one.library, [one.name])[0] for name, one in presets.items()}
    packages = {name: packaged(one.package) for name, one in presets.items() if one.package}
    return {name: replace(one, at_hand=packages.get(name, one.at_hand)) for name, one in known.items()}


def _figures(one: Known) -> list[str]:
    parameters = "-" if one.parameters is None else f"{one.parameters:,}"
    top1, gmacs = ("-" if value is None else f"{value:.{digits}f}" for value, digits in ((one.top1, 1), (one.gmacs, 2)))
    return [parameters, top1, gmacs, str(one.size or "-"), one.at_hand or "-"]


def _print_notes(rows: Sequence[Known]) -> None:
    say = console().print
    say("\nGMACs: billions of multiply-adds an image, often called GFLOPs; pixels: the side of the image")
    if any(one.top1 is None and one.library == "timm" for one in rows):
        say("top-1: not known for networks of timm, as its package carries no accuracies")
    if any(one.at_hand == "Hugging Face cache" for one in rows):
        say("what is in Hugging Face's own cache is taken as backbone.weights=FILE")


def _print_csv(presets: dict[str, Backbone], names: dict[str, list[str]]) -> None:
    rows = [_values(one, f"backbone={name}", name) for name, one in _known_presets(presets).items()]
    for library in LIBRARIES:
        rows += [_values(one, _ask(library, one.name), one.name) for one in _known(library, names[library])]
    print_csv([Column(heading) for heading in IN_CSV], rows)


def _values(one: Known, ask: str, name: str) -> list[str]:
    gmacs = "" if one.gmacs is None else f"{one.gmacs:.6g}"
    figures = ["" if value is None else str(value) for value in (one.parameters, one.top1, gmacs, one.size)]
    return [name, one.library, ask, *figures, one.at_hand]
