"""Locate the user's cache folder, and build folders in it that are complete or absent."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock
from platformdirs import user_cache_path

from thaw.config.errors import Problem, UserError
from thaw.system.files import replace_durably


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
    with raise_write_errors(target), closing(FolderTransaction([target])) as transaction:
        if temporary_folders := transaction.begin():
            fill(temporary_folders[target])
            transaction.commit()
    return target


class FolderTransaction:
    """Creates folders so that each is complete or absent, whatever happens to this process.

    `begin` locks the folders, `commit` puts those that were filled in their places, and `close`, which has to be called
    in any case, removes what was not committed and releases the locks.
    """

    def __init__(self, targets: Collection[Path]) -> None:
        self._targets, self._locks = tuple(targets), ExitStack()
        self._temporary_folders: dict[Path, Path] = {}

    def begin(self) -> dict[Path, Path]:
        """Lock the targets and return an empty folder to fill for each that is missing.

        Raises:
            OSError: if the disk is full or a folder cannot be written.
        """
        if all(target.is_dir() for target in self._targets):
            return {}
        for target in sorted(self._targets):  # all processes lock in the same order, which avoids deadlocks
            target.parent.mkdir(parents=True, exist_ok=True)
            self._locks.enter_context(FileLock(target.with_name(f".{target.name}.lock")))
        missing_targets = [target for target in self._targets if not target.is_dir()]
        for target in missing_targets:
            # This process holds the lock, so no other one is filling these.
            for abandoned_folder in target.parent.glob(f".{target.name}.partial-*"):
                shutil.rmtree(abandoned_folder)
        for target in missing_targets:
            temporary_folder = tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent)
            self._temporary_folders[target] = Path(temporary_folder)
        return dict(self._temporary_folders)

    def commit(self) -> None:
        """Move the filled folders to their targets, after all of their content has reached the disk.

        Raises:
            OSError: if a folder cannot be moved.
        """
        for target, temporary_folder in self._temporary_folders.items():
            temporary_folder.chmod(0o755)  # mkdtemp's 0700 would lock other users of a shared cache out
            replace_durably(temporary_folder, target)

    def close(self) -> None:
        """Remove what was not committed and release the locks."""
        for temporary_folder in self._temporary_folders.values():
            shutil.rmtree(temporary_folder, ignore_errors=True)
        self._locks.close()


def get_hashes_path(target: Path) -> Path:
    """Return the file beside `target` that keeps the hashes of its files, if they are kept outside of it."""
    return target.with_name(f".{target.name}.hashes")


def remove_folder(target: Path) -> None:
    """Remove a complete folder at once: other processes find it complete or absent. If this process is killed
    meanwhile, the next one that fills the folder removes the rest.

    Raises:
        OSError: if it cannot be removed.
    """
    temporary_folder = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    shutil.rmtree(target.replace(temporary_folder))
    get_hashes_path(target).unlink(missing_ok=True)


@contextmanager
def raise_write_errors(target: Path) -> Iterator[None]:
    """Turn an OSError into the UserError that says that the cache, of which `target` is a part, cannot be written."""
    try:
        yield
    except OSError as error:
        raise cache_write_error(target, error) from error


def cache_write_error(target: Path, error: OSError) -> UserError:
    """Build the error for a cache folder that is full or not writable."""
    fix = "free some space, or data.cache_dir=DIR (also $THAW_CACHE) on another disk"
    return UserError("the cache cannot be written.", [Problem(str(target), error.strerror or str(error), fix=fix)])
