"""The feature caches that lie side by side on disk, within a bound; those that were used last stay."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import Timeout

from thaw.data.contents import ABOUT, Entry, complete, remove


def note_use(folder: Path) -> None:
    os.utime(folder / ABOUT)


def make_room(cache: Path, needed: int, bound: float) -> list[Entry]:
    """Removes feature caches from the folder `cache`, the one that was used longest ago first, until `needed` bytes
    more stay within `bound`; returns those. What a process reads goes on to exist for it: the system keeps a mapped
    file."""
    kept = sorted(complete("features", cache), key=lambda one: one.used)
    excess, removed = sum(one.size for one in kept) + needed - bound, list[Entry]()
    for one in kept:
        if excess <= 0:
            break
        try:
            remove(one)
        except Timeout:  # a process has it under its lock
            continue
        removed.append(one)
        excess -= one.size
    return removed
