"""`thaw list [KIND] [PATTERN]`: what a recipe can be put together from."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from thaw.commands.table import Column, print_csv, print_table
from thaw.config.command import config_folder
from thaw.config.faults import DONE, Fault, UserFault, listing, nearest

BACKBONES = "backbones"
NAME, DESCRIPTION = Column("name", keep=True), Column("what it is")
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
    groups = _groups()
    if {"--help", "-h"} & set(arguments):
        print(HELP.format(kinds=", ".join(kind for kind in groups if kind not in (BACKBONES, "strategies"))))
        return DONE
    words = [one for one in arguments if one != "--csv"]
    _check(words)
    as_csv = "--csv" in arguments
    if not words:
        _show([Column("kind", keep=True), Column("in a recipe", keep=True), Column("choices")], _kinds(groups), as_csv)
        return DONE
    kind, pattern = _kind(words[0], groups), words[1] if len(words) > 1 else None
    if kind == BACKBONES:
        from thaw.commands import backbones

        return backbones.run(groups[kind], pattern, as_csv)
    _show([NAME, DESCRIPTION], _described(kind, groups[kind], pattern), as_csv)
    return DONE


def _check(words: Sequence[str]) -> None:
    wrong = [one for one in words if one.startswith("-")] or list(words[2:])
    if wrong:
        raise UserFault("thaw list has no such argument.", [Fault(wrong[0], valid="[KIND] [PATTERN] [--csv]")])


def _show(columns: Sequence[Column], rows: Sequence[Sequence[str]], as_csv: bool) -> None:
    (print_csv if as_csv else print_table)(columns, rows)


def _groups() -> dict[str, Path]:
    """Kind -> its folder in `conf/`: strategies -> conf/strategy."""
    folders = sorted(one for one in config_folder().iterdir() if one.is_dir() and any(one.glob("*.yaml")))
    return {re.sub("y$", "ie", folder.name) + "s": folder for folder in folders}


def _kind(word: str, groups: dict[str, Path]) -> str:
    singular = {folder.name: kind for kind, folder in groups.items()}
    if word in groups or word in singular:
        return singular.get(word, word)
    fix = f"thaw list {nearest(word, groups) or ''}".strip()
    if nearest(word, groups) is None and nearest(word, singular) is None:
        fix = f"thaw list backbones '*{word.strip('*')}*'" if re.search(r"[\d*]", word) else fix
    raise UserFault("no such kind of thing to list.", [Fault(f"thaw list {word}", valid=listing(groups), fix=fix)])


def _kinds(groups: dict[str, Path]) -> list[list[str]]:
    choices = {kind: sorted(file.stem for file in folder.glob("*.yaml")) for kind, folder in groups.items()}
    return [[kind, f"{folder.name}=NAME", ", ".join(choices[kind])] for kind, folder in groups.items()]


def _described(kind: str, folder: Path, pattern: str | None) -> list[list[str]]:
    files = sorted(folder.glob("*.yaml"))
    fitting = [file for file in files if pattern is None or fnmatchcase(file.stem, pattern)]
    if not fitting:
        names = [file.stem for file in files]
        fix = f"thaw list {kind} {nearest(pattern or '', names) or ''}".strip()
        raise UserFault(
            f"none of the {kind} fits.", [Fault(f"thaw list {kind} {pattern}", valid=listing(names), fix=fix)]
        )
    return [[file.stem, description(file)] for file in fitting]


def description(file: Path) -> str:
    """The first sentence of the comment that a file of `conf/` begins with; "-" where it begins with none."""
    lines: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        if not line.startswith("#") or (
            lines and (not text or line.startswith("#  "))
        ):  # an indented line is a command
            break
        lines += [text] if text and not text.startswith("@package") else []
    first = re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(lines), maxsplit=1)[0]
    return first.removesuffix(".") or "-"
