"""The feature caches that lie side by side on disk, within a bound; those that were used last stay."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import Timeout

from thaw.data.contents import METADATA_FILE, CacheEntry, list_complete_entries, remove


def touch(folder: Path) -> None:
    os.utime(folder / METADATA_FILE)


def evict_least_recently_used(cache_dir: Path, needed_bytes: int, max_bytes: float) -> list[CacheEntry]:
    """Removes feature caches from the folder `cache`, the one that was used longest ago first, until `needed` bytes
    more stay within `bound`; returns those. What a process reads goes on to exist for it: the system keeps a mapped
    file."""
    entries = sorted(list_complete_entries("features", cache_dir), key=lambda entry: entry.last_used)
    excess_bytes, evicted = sum(entry.size for entry in entries) + needed_bytes - max_bytes, list[CacheEntry]()
    for entry in entries:
        if excess_bytes <= 0:
            break
        try:
            remove(entry)
        except Timeout:  # a process has it under its lock
            continue
        evicted.append(entry)
        excess_bytes -= entry.size
    return evicted
