"""What lies in the cache folder, and how it is taken out while other processes may be at work. Imports no torch."""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

METADATA_FILE = "meta.json"  # of features; its time of change is when they were used last
DESCRIPTION_KEYS = ("dataset", "backbone", "stage")  # of what ABOUT says
COMPLETE_NAME_PATTERN = re.compile(
    r"(?:.+-)?[0-9a-f]{16}"
)  # the names of complete folders, `cache.key_of` behind an optional word
PARTIAL_NAME_PATTERN = re.compile(r"\.(.+)\.partial-[^/]+")  # of a folder that is filled, or was until a kill
HUB_REPOSITORY_PATTERN = re.compile(r"models--.+")  # a repository of the Hugging Face hub


@dataclass(frozen=True)
class CacheEntry:
    """One thing to clear: `key` is its name, `size` in bytes, `used` the last use that the file system knows of in
    seconds since 1970, `what` it is for a person. `locks` are held by whoever fills it."""

    kind: str
    key: str
    path: Path
    size: int
    last_used: float
    description: str
    locks: tuple[Path, ...]


def list_entries(cache_dir: Path) -> list[CacheEntry]:
    """All that thaw has put into `cache`, by kind and last use. Other files there are left out: `data.cache_dir` may be a
    folder with things of its user, who has named some as thaw does."""
    entries = [entry for kind, list_kind in ENTRY_LISTERS.items() for entry in list_kind(kind, cache_dir / kind)]
    return sorted(entries, key=lambda entry: (list(ENTRY_LISTERS).index(entry.kind), entry.last_used))


def list_complete_entries(kind: str, cache_dir: Path) -> list[CacheEntry]:
    """What is whole of one kind."""
    return [
        entry for entry in ENTRY_LISTERS[kind](kind, cache_dir / kind) if not PARTIAL_NAME_PATTERN.fullmatch(entry.key)
    ]


def is_busy(entry: CacheEntry) -> bool:
    """Whether a process fills it now, or this one may not write there."""
    try:
        with ExitStack() as stack:
            _acquire_locks(entry, stack)
    except (Timeout, OSError):
        return True
    return False


def remove(entry: CacheEntry) -> None:
    """Takes it out whole: a process that looks meanwhile finds it complete or absent, and one that has its files open
    goes on reading them.

    Raises:
        Timeout: where a process fills it.
        OSError: where it cannot be removed.
    """
    with ExitStack() as stack:
        _acquire_locks(entry, stack)
        if entry.path.is_symlink() or entry.path.is_file():
            entry.path.unlink()
        elif entry.path.is_dir():  # else another process was faster
            shutil.rmtree(entry.path if PARTIAL_NAME_PATTERN.fullmatch(entry.key) else _rename_to_partial(entry))


def _rename_to_partial(entry: CacheEntry) -> Path:
    """The whole folder under a name by which a kill leaves a partial one, to be cleared too."""
    temporary_folder = Path(tempfile.mkdtemp(prefix=f".{entry.key}.partial-", dir=entry.path.parent))
    return entry.path.replace(temporary_folder)


def _acquire_locks(entry: CacheEntry, stack: ExitStack) -> None:
    for lock in entry.locks:
        stack.enter_context(FileLock(lock, timeout=0))


def _make_folder_lister(describe: Callable[[Path, int], str]) -> Callable[[str, Path], Iterator[CacheEntry]]:
    def list_folders(kind: str, folder: Path) -> Iterator[CacheEntry]:
        for path in _list_paths(folder):
            partial_match = PARTIAL_NAME_PATTERN.fullmatch(path.name)
            if path.is_dir() and (partial_match or COMPLETE_NAME_PATTERN.fullmatch(path.name)):
                lock = folder / f".{partial_match[1] if partial_match else path.name}.lock"
                num_files, size, last_used = _measure_folder(path)
                metadata_status = _get_status(path / METADATA_FILE)
                last_used = metadata_status.st_mtime if metadata_status else last_used
                description = "half filled" if partial_match else describe(path, num_files)
                yield CacheEntry(kind, path.name, path, size, last_used, description, (lock,))

    return list_folders


def _list_files(kind: str, folder: Path) -> Iterator[CacheEntry]:
    """Files that `fetch.fetched` or Kaggle's client has got, which is to say: those with a lock beside them."""
    for path in _list_paths(folder):
        complete_name = path.name.removesuffix(".part")
        locks = [
            folder / f".{name}.lock" for name in (complete_name, Path(complete_name).stem)
        ]  # Kaggle's is without .zip
        existing_locks = tuple(lock for lock in locks if lock.is_file())
        if path.is_file() and existing_locks and not path.name.startswith("."):
            status, description = (
                path.stat(),
                "broken off; fetching it goes on from there" if complete_name != path.name else "",
            )
            yield CacheEntry(
                kind,
                path.name,
                path,
                status.st_size,
                max(status.st_atime, status.st_mtime),
                description,
                existing_locks,
            )


def _list_weights(kind: str, folder: Path) -> Iterator[CacheEntry]:
    """torchvision's files, and timm's repositories as the hub's client keeps them, with its locks."""
    yield from _list_files(kind, folder)
    for path in _list_paths(folder / "timm"):
        if path.is_dir() and HUB_REPOSITORY_PATTERN.fullmatch(path.name):
            _, size, last_used = _measure_folder(path)
            locks = tuple(sorted((folder / "timm" / ".locks" / path.name).glob("*.lock")))
            yield CacheEntry(kind, path.name, path, size, last_used, "timm", locks)


def _list_paths(folder: Path) -> Sequence[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else ()


def _measure_folder(folder: Path) -> tuple[int, int, float]:
    """How many files, bytes, and the last use; the links that the hub's client makes lead to files beside them."""
    statuses = [status for path in folder.rglob("*") if (status := _get_status(path)) and S_ISREG(status.st_mode)]
    last_used = max((max(status.st_atime, status.st_mtime) for status in statuses), default=0.0)
    return len(statuses), sum(status.st_size for status in statuses), last_used


def _get_status(path: Path) -> os.stat_result | None:
    """None where another process has taken it away meanwhile."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _describe_dataset(path: Path, num_files: int) -> str:
    return f"{num_files:,} file{'s' * (num_files != 1)}"


def _describe_decoded(path: Path, num_files: int) -> str:
    try:
        return f"{len(np.load(path / 'table.npy', mmap_mode='r', allow_pickle=False)):,} images"
    except (OSError, ValueError):
        return "unreadable"


def _describe_features(path: Path, num_files: int) -> str:
    metadata = _read_json(path / METADATA_FILE)
    dimensions = [metadata.get("rows"), *metadata.get("shape", ())]
    shape = " x ".join(str(dimension) for dimension in dimensions if dimension is not None)
    return (
        ", ".join(str(value) for value in (*map(metadata.get, DESCRIPTION_KEYS), shape, metadata.get("dtype")) if value)
        or "unreadable"
    )


def _read_json(file: Path) -> dict[str, Any]:
    """Empty where it cannot be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _list_measurements(kind: str, folder: Path) -> Iterator[CacheEntry]:
    """Small files of what was measured once, each written whole."""
    for path in _list_paths(folder):
        if path.suffix == ".json" and COMPLETE_NAME_PATTERN.fullmatch(path.stem) and (status := _get_status(path)):
            measurement = _read_json(path)
            description = ", ".join(str(measurement[name]) for name in ("architecture", "size") if name in measurement)
            yield CacheEntry(
                kind, path.stem, path, status.st_size, max(status.st_atime, status.st_mtime), description, ()
            )


ENTRY_LISTERS: dict[str, Callable[[str, Path], Iterator[CacheEntry]]] = {
    "downloads": _list_files,
    "datasets": _make_folder_lister(_describe_dataset),
    "decoded": _make_folder_lister(_describe_decoded),
    "features": _make_folder_lister(_describe_features),
    "weights": _list_weights,
    "measured": _list_measurements,
}


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
