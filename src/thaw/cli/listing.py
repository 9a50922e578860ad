"""`thaw list [KIND] [PATTERN]`: what a recipe can be put together from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from thaw.cli.table import Column, print_csv, print_table
from thaw.config.compose import get_config_folder
from thaw.config.errors import EXIT_SUCCESS, Problem, UserError, find_closest_name, format_names

BACKBONES = "backbones"
NAME_COLUMN, DESCRIPTION_COLUMN = Column("name", no_wrap=True), Column("what it is")
HELP = """thaw list [KIND] [PATTERN] [--csv]

  thaw list                          the kinds, and the choices of each
  thaw list backbones                presets, and torchvision's classifiers with their published figures
  thaw list backbones 'convnext*'    those of torchvision and timm whose name fits a shell pattern (quote it)
  thaw list strategies               a line for each; so with {kinds}

  --csv    comma-separated values on standard output: with backbones all of them, those of timm too

GMACs are billions of multiply-adds for one image, which many papers call GFLOPs; top-1 is accuracy on ImageNet in per
cent. Both, and the number of parameters, belong to the default weights and to images of the size that stands beside
them. "weights here" says which weights need no network: those of an installed package, or files in thaw's cache, torch
hub's or Hugging Face's. Nothing is fetched. Exit status: 0, or 2 where nothing fits."""


def run(arguments: Sequence[str]) -> int:
    """Prints the list that `arguments` ask for and returns the exit status.

    Raises:
        UserFault: where there is no such kind, no such option, or nothing that the pattern fits.
    """
    groups = _list_groups()
    if {"--help", "-h"} & set(arguments):
        print(HELP.format(kinds=", ".join(kind for kind in groups if kind not in (BACKBONES, "strategies"))))
        return EXIT_SUCCESS
    positionals = [argument for argument in arguments if argument != "--csv"]
    _check_arguments(positionals)
    as_csv = "--csv" in arguments
    if not positionals:
        _print_rows(
            [Column("kind", no_wrap=True), Column("in a recipe", no_wrap=True), Column("choices")],
            _build_kind_rows(groups),
            as_csv,
        )
        return EXIT_SUCCESS
    kind, pattern = _resolve_kind(positionals[0], groups), positionals[1] if len(positionals) > 1 else None
    if kind == BACKBONES:
        from thaw.cli import backbones

        return backbones.run(groups[kind], pattern, as_csv)
    _print_rows([NAME_COLUMN, DESCRIPTION_COLUMN], _build_description_rows(kind, groups[kind], pattern), as_csv)
    return EXIT_SUCCESS


def _check_arguments(positionals: Sequence[str]) -> None:
    invalid_arguments = [argument for argument in positionals if argument.startswith("-")] or list(positionals[2:])
    if invalid_arguments:
        raise UserError(
            "thaw list has no such argument.", [Problem(invalid_arguments[0], valid="[KIND] [PATTERN] [--csv]")]
        )


def _print_rows(columns: Sequence[Column], rows: Sequence[Sequence[str]], as_csv: bool) -> None:
    (print_csv if as_csv else print_table)(columns, rows)


def _list_groups() -> dict[str, Path]:
    """Kind -> its folder in `conf/`: strategies -> conf/strategy."""
    folders = sorted(path for path in get_config_folder().iterdir() if path.is_dir() and any(path.glob("*.yaml")))
    return {re.sub("y$", "ie", folder.name) + "s": folder for folder in folders}


def _resolve_kind(name: str, groups: dict[str, Path]) -> str:
    kinds_by_group = {folder.name: kind for kind, folder in groups.items()}
    if name in groups or name in kinds_by_group:
        return kinds_by_group.get(name, name)
    fix = f"thaw list {find_closest_name(name, groups) or ''}".strip()
    if find_closest_name(name, groups) is None and find_closest_name(name, kinds_by_group) is None:
        fix = f"thaw list backbones '*{name.strip('*')}*'" if re.search(r"[\d*]", name) else fix
    raise UserError(
        "no such kind of thing to list.", [Problem(f"thaw list {name}", valid=format_names(groups), fix=fix)]
    )


def _build_kind_rows(groups: dict[str, Path]) -> list[list[str]]:
    choices = {kind: sorted(file.stem for file in folder.glob("*.yaml")) for kind, folder in groups.items()}
    return [[kind, f"{folder.name}=NAME", ", ".join(choices[kind])] for kind, folder in groups.items()]


def _build_description_rows(kind: str, folder: Path, pattern: str | None) -> list[list[str]]:
    files = sorted(folder.glob("*.yaml"))
    matching_files = [file for file in files if pattern is None or fnmatchcase(file.stem, pattern)]
    if not matching_files:
        names = [file.stem for file in files]
        fix = f"thaw list {kind} {find_closest_name(pattern or '', names) or ''}".strip()
        raise UserError(
            f"none of the {kind} fits.", [Problem(f"thaw list {kind} {pattern}", valid=format_names(names), fix=fix)]
        )
    return [[file.stem, read_description(file)] for file in matching_files]


def read_description(file: Path) -> str:
    """The first sentence of the comment that a file of `conf/` begins with; "-" where it begins with none."""
    lines: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if not line.startswith("#") or (
            lines and (not text or line.startswith("#  "))
        ):  # an indented line is a command
            break
        lines += [text] if text and not text.startswith(("@package", "yaml-language-server:")) else []
    first_sentence = re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(lines), maxsplit=1)[0]
    return first_sentence.removesuffix(".") or "-"
