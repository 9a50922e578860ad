"""What surrounds a run: its lock, the time, versions and the git revision of thaw."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

from thaw.config.consistency import has_weights_path
from thaw.config.errors import Problem, UserError
from thaw.config.schema import Recipe
from thaw.system.portable import make_portable, shorten_home

RECORDED_PACKAGES = ("thaw", "torch", "torchvision", "pytorch-lightning", "timm", "hydra-core", "numpy", "pillow")


def format_current_time() -> str:
    """Return the local time with its offset from UTC: 2026-11-22T06:14:30+0000."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def get_versions() -> dict[str, str]:
    """Return the versions of thaw, Python and the packages that decide a result."""
    return {"python": sys.version.split()[0], **{name: version(name) for name in RECORDED_PACKAGES}}


def get_git_revision() -> dict[str, Any] | None:
    """Return the commit of thaw's source and whether tracked files differ from it; None outside a checkout."""
    source_directory = Path(__file__).parent
    try:
        commit = _run_git(source_directory, "rev-parse", "HEAD")
        changes = _run_git(source_directory, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit, "changed": bool(changes)}


def _run_git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def make_recipe_portable(recipe: Recipe) -> Recipe:
    """Return `recipe` with paths that are found from any working folder, and with `~` for the home folder."""
    values = recipe.to_dict()
    path_keys = [("dataset", "root"), ("data", "cache_dir"), ("data", "exclude"), ("data", "relabel")]
    path_keys += [("backbone", "weights")] if has_weights_path(recipe.backbone) else []
    for group, key in path_keys:
        if path := values[group].get(key):
            values[group][key] = make_portable(path)
    return Recipe.model_validate(shorten_home(values))


@contextmanager
def lock_run(directory: Path) -> Iterator[None]:
    """Lock `directory` for this process. The operating system releases the lock however the process ends.

    Raises:
        UserError: if another process trains in it.
    """
    file_descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(file_descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(file_descriptor)
        raise UserError("the run is under way.", [Problem(str(directory), "another process trains in it")]) from error
    try:
        yield
    finally:
        os.close(file_descriptor)
