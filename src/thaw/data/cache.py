"""The user's cache folder, and folders in it that are complete or absent, never half."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from thaw.config.faults import Fault, UserFault


def cache_folder(configured: str | None) -> Path:
    """`configured`, else $THAW_CACHE, else the user's cache folder."""
    named = configured or os.environ.get("THAW_CACHE")
    return Path(named).expanduser().absolute() if named else user_cache_path("thaw")


def key_of(**parts: Any) -> str:
    """16 hex digits that change whenever any of the plain values does."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def complete_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """`target`, filled by `fill(folder)` unless it is there. Processes that ask together fill it once; whatever is
    killed on the way leaves no `target`.

    Raises:
        UserFault: where the disk is full or the folder cannot be written.
    """
    if target.is_dir():
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.with_name(f".{target.name}.lock")):
            if not target.is_dir():
                _fill_aside(target, fill)
    except OSError as error:
        raise cannot_write(target, error) from error
    return target


def _fill_aside(target: Path, fill: Callable[[Path], None]) -> None:
    for abandoned in target.parent.glob(f".{target.name}.partial-*"):  # we hold the lock: nobody is filling these
        shutil.rmtree(abandoned)
    aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        fill(aside)
        aside.chmod(0o755)  # mkdtemp's 0700 would hide a shared cache from its other users
        aside.replace(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def cannot_write(target: Path, error: OSError) -> UserFault:
    fix = "free some space, or data.cache=DIR (also $THAW_CACHE) on another disk"
    return UserFault("the cache cannot be written.", [Fault(str(target), error.strerror or str(error), fix=fix)])
