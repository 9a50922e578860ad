"""The feature caches that lie side by side on disk, within a bound; those that were used last stay."""

from __future__ import annotations

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

ABOUT = "meta.json"  # its time of change is when the cache was used last


@dataclass(frozen=True)
class Entry:
    """A complete cache: `size` in bytes, `used` in seconds since 1970."""

    folder: Path
    size: int
    used: float


def entries(shelf: Path) -> list[Entry]:
    """The complete caches in `shelf`, the one that was not used for the longest time first."""
    found = []
    for folder in shelf.iterdir() if shelf.is_dir() else ():
        try:
            used = (folder / ABOUT).stat().st_mtime
            size = sum(file.stat().st_size for file in folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):  # a lock, or taken away by another process meanwhile
            continue
        if not folder.name.startswith("."):
            found.append(Entry(folder, size, used))
    return sorted(found, key=lambda one: one.used)


def note_use(folder: Path) -> None:
    os.utime(folder / ABOUT)


def make_room(shelf: Path, needed: int, bound: float) -> list[Entry]:
    """Removes caches, the oldest first, until `needed` bytes more stay within `bound`; returns those. A process that
    reads one goes on reading: the system keeps a mapped file until it is closed."""
    kept = entries(shelf)
    excess, removed = sum(one.size for one in kept) + needed - bound, []
    for one in kept:
        if excess <= 0:
            break
        if remove(one.folder):
            removed.append(one)
            excess -= one.size
    return removed


def remove(folder: Path) -> bool:
    """False where a process holds the lock of `folder`. What a kill leaves half removed is no cache any more."""
    try:
        with FileLock(folder.with_name(f".{folder.name}.lock"), timeout=0):
            aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.partial-", dir=folder.parent))
            folder.replace(aside)
            shutil.rmtree(aside)
    except (Timeout, FileNotFoundError):
        return False
    return True
