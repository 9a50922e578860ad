"""The user's cache folder, and folders in it that are complete or absent, never half."""

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
    """`configured`, else $THAW_CACHE, else the user's cache folder."""
    configured_dir = configured or os.environ.get("THAW_CACHE")
    return Path(configured_dir).expanduser().absolute() if configured_dir else user_cache_path("thaw")


def compute_cache_key(**parts: Any) -> str:
    """16 hex digits that change whenever any of the plain values does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def build_folder_once(target: Path, fill: Callable[[Path], None]) -> Path:
    """`target`, filled by `fill(folder)` unless it is there. Processes that ask together fill it once; whatever is
    killed on the way leaves no `target`.

    Raises:
        UserFault: where the disk is full or the folder cannot be written.
    """
    build_folders_once([target], lambda folders: fill(folders[target]))
    return target


def build_folders_once(targets: Collection[Path], fill: Callable[[dict[Path, Path]], None]) -> None:
    """As `complete_folder`, of several that one pass fills: `fill` gets a folder for each that is not there.

    Raises:
        UserFault: where the disk is full or a folder cannot be written.
    """
    if all(target.is_dir() for target in targets):
        return
    try:
        with ExitStack() as locks:
            for target in sorted(targets):  # all processes lock in this order, so none waits for one that waits for it
                target.parent.mkdir(parents=True, exist_ok=True)
                locks.enter_context(FileLock(target.with_name(f".{target.name}.lock")))
            missing_targets = [target for target in targets if not target.is_dir()]
            if missing_targets:
                _fill_temporary_folders(missing_targets, fill)
    except OSError as error:
        raise cache_write_error(sorted(targets)[0], error) from error


def _fill_temporary_folders(targets: Sequence[Path], fill: Callable[[dict[Path, Path]], None]) -> None:
    for target in targets:
        for abandoned_folder in target.parent.glob(
            f".{target.name}.partial-*"
        ):  # we hold the lock: nobody is filling these
            shutil.rmtree(abandoned_folder)
    temporary_folders = {
        target: Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent)) for target in targets
    }
    try:
        fill(temporary_folders)
        for target, temporary_folder in temporary_folders.items():
            temporary_folder.chmod(0o755)  # mkdtemp's 0700 would hide a shared cache from its other users
            temporary_folder.replace(target)
    finally:
        for temporary_folder in temporary_folders.values():
            shutil.rmtree(temporary_folder, ignore_errors=True)


def cache_write_error(target: Path, error: OSError) -> UserError:
    fix = "free some space, or data.cache_dir=DIR (also $THAW_CACHE) on another disk"
    return UserError("the cache cannot be written.", [Problem(str(target), error.strerror or str(error), fix=fix)])
