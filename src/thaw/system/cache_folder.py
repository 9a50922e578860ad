"""Locate the user's cache folder, and build folders in it that are complete or absent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from thaw.config.errors import Problem, UserError


def resolve_cache_dir(configured: str | None) -> Path:
    """Return `configured`, else $THAW_CACHE, else the user's cache folder."""
    configured_dir = configured or os.environ.get("THAW_CACHE")
    return Path(configured_dir).expanduser().absolute() if configured_dir else user_cache_path("thaw")


def compute_cache_key(**parts: Any) -> str:
    """Return 16 hex digits that change with any of the plain values."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def build_folder_once(target: Path, fill: Callable[[Path], None]) -> Path:
    """Fill the folder `target` by `fill(folder)` if it does not exist, and return it.

    Concurrent processes fill it once; a process that is killed meanwhile leaves no `target`.

    Raises:
        UserError: if the disk is full or the folder is not writable.
    """
    build_folders_once([target], lambda folders: fill(folders[target]))
    return target


def build_folders_once(targets: Collection[Path], fill: Callable[[dict[Path, Path]], None]) -> None:
    """Fill several folders in one pass: `fill` gets a temporary folder for each target that does not exist.

    Raises:
        UserError: if the disk is full or a folder is not writable.
    """
    if all(target.is_dir() for target in targets):
        return
    try:
        with ExitStack() as locks:
            for target in sorted(targets):  # all processes lock in the same order, which avoids deadlocks
                target.parent.mkdir(parents=True, exist_ok=True)
                locks.enter_context(FileLock(target.with_name(f".{target.name}.lock")))
            missing_targets = [target for target in targets if not target.is_dir()]
            if missing_targets:
                _fill_temporary_folders(missing_targets, fill)
    except OSError as error:
        raise cache_write_error(sorted(targets)[0], error) from error


def _fill_temporary_folders(targets: Sequence[Path], fill: Callable[[dict[Path, Path]], None]) -> None:
    for target in targets:
        # This process holds the lock, so no other one is filling these.
        for abandoned_folder in target.parent.glob(f".{target.name}.partial-*"):
            shutil.rmtree(abandoned_folder)
    temporary_folders = {
        target: Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent)) for target in targets
    }
    try:
        fill(temporary_folders)
        for target, temporary_folder in temporary_folders.items():
            temporary_folder.chmod(0o755)  # mkdtemp's 0700 would lock other users of a shared cache out
            temporary_folder.replace(target)
    finally:
        for temporary_folder in temporary_folders.values():
            shutil.rmtree(temporary_folder, ignore_errors=True)


def cache_write_error(target: Path, error: OSError) -> UserError:
    """Build the error for a cache folder that is full or not writable."""
    fix = "free some space, or data.cache_dir=DIR (also $THAW_CACHE) on another disk"
    return UserError("the cache cannot be written.", [Problem(str(target), error.strerror or str(error), fix=fix)])
