"""The files in `conf/`: the folder, its groups and choices, and the first sentence of each. Imports only the standard
library, because `--help` and completion read it."""

from __future__ import annotations

import re
from pathlib import Path


def get_config_folder() -> Path:
    """Return `conf/`: inside the installed package, or at the root of a checkout."""
    package = Path(__file__).resolve().parents[1]
    packaged_folder = package / "conf"
    return packaged_folder if packaged_folder.is_dir() else package.parents[1] / "conf"


def list_group_choices() -> dict[str, list[str]]:
    """Return the choices of every group of the recipe, both sorted: {"augment": ["caltech_tutorial", ...], ...}."""
    folders = sorted(path for path in get_config_folder().iterdir() if path.is_dir())
    choices = {folder.name: sorted(file.stem for file in folder.glob("*.yaml")) for folder in folders}
    return {group: names for group, names in choices.items() if names}


def read_description(file: Path) -> str:
    """Return the first sentence of the comment that a file of `conf/` begins with, or "-" if there is none."""
    lines: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        text = line.removeprefix("#").strip()
        is_end_of_sentence = lines and (not text or line.startswith("#  "))  # an indented line is a command
        if not line.startswith("#") or is_end_of_sentence:
            break
        lines += [text] if text and not text.startswith(("@package", "yaml-language-server:")) else []
    first_sentence = re.split(r"(?<=\.)\s+(?=[A-Z])", " ".join(lines), maxsplit=1)[0]
    return first_sentence.removesuffix(".") or "-"
