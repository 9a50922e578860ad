"""List, remove and evict entries of the cache folder while other processes may use it. Does not import torch."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
from filelock import FileLock, Timeout

from thaw.system.cache_folder import remove_folder

METADATA_FILE = "meta.json"  # of cached features; its modification time is their last use
DESCRIPTION_KEYS = ("dataset", "backbone", "stage")  # keys of METADATA_FILE
MEASUREMENT_KEYS = ("architecture", "size", "kind", "precision")  # keys of a measurement
COMPLETE_NAME_PATTERN = re.compile(r"(?:.+-)?[0-9a-f]{16}")  # a complete folder: an optional word and a cache key
PARTIAL_NAME_PATTERN = re.compile(r"\.(.+)\.partial-[^/]+")  # a folder that is being filled, or was until a kill
UNREADABLE = "unreadable"  # the description of damaged entries
HUB_REPOSITORY_PATTERN = re.compile(r"models--.+")  # a repository of the Hugging Face hub


@dataclass(frozen=True)
class CacheEntry:
    """One file or folder of the cache that can be removed.

    Attributes:
        kind: name of its folder in the cache, a key of ENTRY_LISTERS.
        key: its name.
        path: where it is.
        size: in bytes.
        last_used: last use that the file system knows of, in seconds since 1970.
        description: its content, for display.
        locks: lock files that a process holds while it fills the entry.
    """

    kind: str
    key: str
    path: Path
    size: int
    last_used: float
    description: str
    locks: tuple[Path, ...]


def list_entries(cache_dir: Path) -> list[CacheEntry]:
    """List everything that thaw has put into `cache_dir`, by kind and last use.

    Other files are left out: `data.cache_dir` may be a folder that its user also keeps other things in.
    """
    entries = [entry for kind, list_kind in ENTRY_LISTERS.items() for entry in list_kind(kind, cache_dir / kind)]
    return sorted(entries, key=lambda entry: (list(ENTRY_LISTERS).index(entry.kind), entry.last_used))


def list_complete_entries(kind: str, cache_dir: Path) -> list[CacheEntry]:
    """List the complete entries of one kind."""
    entries = ENTRY_LISTERS[kind](kind, cache_dir / kind)
    return [entry for entry in entries if not PARTIAL_NAME_PATTERN.fullmatch(entry.key)]


def is_busy(entry: CacheEntry) -> bool:
    """Return whether a process is filling the entry, or its folder is not writable."""
    try:
        with ExitStack() as stack:
            _acquire_locks(entry, stack)
    except (Timeout, OSError):
        return True
    return False


def remove(entry: CacheEntry) -> None:
    """Remove an entry at once: other processes find it complete or absent, and can still read files that they opened.

    Raises:
        Timeout: if a process is filling it.
        OSError: if it cannot be removed.
    """
    with ExitStack() as stack:
        _acquire_locks(entry, stack)
        if entry.path.is_symlink() or entry.path.is_file():
            entry.path.unlink()
        elif PARTIAL_NAME_PATTERN.fullmatch(entry.key):
            shutil.rmtree(entry.path)
        elif entry.path.is_dir():  # otherwise another process has removed it
            remove_folder(entry.path)


def _acquire_locks(entry: CacheEntry, stack: ExitStack) -> None:
    for lock in entry.locks:
        stack.enter_context(FileLock(lock, timeout=0))


def touch(folder: Path) -> None:
    """Set the last use of cached features to now."""
    os.utime(folder / METADATA_FILE)


def evict_least_recently_used(cache_dir: Path, needed_bytes: int, max_bytes: float) -> list[CacheEntry]:
    """Remove the least recently used cached features until `needed_bytes` more fit into `max_bytes`, and return them.

    Processes that read evicted features continue to do so: the operating system keeps files that are mapped.
    """
    entries = sorted(list_complete_entries("features", cache_dir), key=lambda entry: entry.last_used)
    excess_bytes, evicted = sum(entry.size for entry in entries) + needed_bytes - max_bytes, list[CacheEntry]()
    for entry in entries:
        if excess_bytes <= 0:
            break
        try:
            remove(entry)
        except Timeout:  # a process is using it
            continue
        evicted.append(entry)
        excess_bytes -= entry.size
    return evicted


def _make_folder_lister(describe: Callable[[Path, int], str]) -> Callable[[str, Path], Iterator[CacheEntry]]:
    """Make a lister of folders; `describe(folder, number of files)` returns the description of a complete one."""

    def list_folders(kind: str, folder: Path) -> Iterator[CacheEntry]:
        for path in _list_paths(folder):
            partial_match = PARTIAL_NAME_PATTERN.fullmatch(path.name)
            if path.is_dir() and (partial_match or COMPLETE_NAME_PATTERN.fullmatch(path.name)):
                lock = folder / f".{partial_match[1] if partial_match else path.name}.lock"
                num_files, size, last_used = _measure_folder(path)
                metadata_status = _get_status(path / METADATA_FILE)
                last_used = metadata_status.st_mtime if metadata_status else last_used
                description = "incomplete" if partial_match else _try_describe(describe, path, num_files)
                yield CacheEntry(kind, path.name, path, size, last_used, description, (lock,))

    return list_folders


def _try_describe(describe: Callable[[Path, int], str], path: Path, num_files: int) -> str:
    """Return the description of a folder whose files may be damaged, for which NumPy raises about any exception."""
    try:
        return describe(path, num_files)
    except Exception:
        return UNREADABLE


def _list_files(kind: str, folder: Path) -> Iterator[CacheEntry]:
    """List the files that thaw or Kaggle's client has downloaded: those with a lock file."""
    for path in _list_paths(folder):
        complete_name = path.name.removesuffix(".part")
        possible_locks = [folder / f".{name}.lock" for name in (complete_name, Path(complete_name).stem)]
        locks = tuple(lock for lock in possible_locks if lock.is_file())  # that of Kaggle's client is without .zip
        if path.is_file() and locks and not path.name.startswith("."):
            status = path.stat()
            description = "interrupted; the next download resumes it" if complete_name != path.name else ""
            yield CacheEntry(kind, path.name, path, status.st_size, _get_last_used(status), description, locks)


def _list_weights(kind: str, folder: Path) -> Iterator[CacheEntry]:
    """List torchvision's files, and timm's repositories with the locks of the hub's client."""
    yield from _list_files(kind, folder)
    for path in _list_paths(folder / "timm"):
        if path.is_dir() and HUB_REPOSITORY_PATTERN.fullmatch(path.name):
            _, size, last_used = _measure_folder(path)
            locks = tuple(sorted((folder / "timm" / ".locks" / path.name).glob("*.lock")))
            yield CacheEntry(kind, path.name, path, size, last_used, "timm", locks)


def _list_measurements(kind: str, folder: Path) -> Iterator[CacheEntry]:
    """List small JSON files of measurements, each written completely or not at all."""
    for path in _list_paths(folder):
        if path.suffix == ".json" and COMPLETE_NAME_PATTERN.fullmatch(path.stem) and (status := _get_status(path)):
            measurement = _read_json(path)
            description = ", ".join(str(measurement[name]) for name in MEASUREMENT_KEYS if name in measurement)
            lock = folder / f".{path.stem}.lock"
            yield CacheEntry(kind, path.stem, path, status.st_size, _get_last_used(status), description, (lock,))


def _list_indexes(kind: str, folder: Path) -> Iterator[CacheEntry]:
    """List the hashes of files that are remembered, a file for each root of a data set."""
    for path in _list_paths(folder):
        if path.suffix == ".npz" and COMPLETE_NAME_PATTERN.fullmatch(path.stem) and (status := _get_status(path)):
            description = _try_describe(_describe_index, path, 1)
            lock = folder / f".{path.stem}.lock"
            yield CacheEntry(kind, path.stem, path, status.st_size, _get_last_used(status), description, (lock,))


def _describe_index(path: Path, num_files: int) -> str:
    with np.load(path, allow_pickle=False) as arrays:
        return f"hashes of {len(arrays['status']):,} files below {os.fsdecode(arrays['root'].tobytes())}"


def _describe_dataset(path: Path, num_files: int) -> str:
    return f"{num_files:,} file{'s' * (num_files != 1)}"


def _describe_decoded(path: Path, num_files: int) -> str:
    return f"{len(np.load(path / 'table.npy', mmap_mode='r', allow_pickle=False)):,} images"


def _describe_features(path: Path, num_files: int) -> str:
    metadata = _read_json(path / METADATA_FILE)
    dimensions = [metadata.get("rows"), *metadata.get("shape", ())]
    shape = " x ".join(str(dimension) for dimension in dimensions if dimension is not None)
    values = [*map(metadata.get, DESCRIPTION_KEYS), shape, metadata.get("dtype")]
    return ", ".join(str(value) for value in values if value) or UNREADABLE


ENTRY_LISTERS: dict[str, Callable[[str, Path], Iterator[CacheEntry]]] = {
    "downloads": _list_files,
    "datasets": _make_folder_lister(_describe_dataset),
    "indexes": _list_indexes,
    "decoded": _make_folder_lister(_describe_decoded),
    "features": _make_folder_lister(_describe_features),
    "weights": _list_weights,
    "measured": _list_measurements,
}


def is_cache_folder(folder: Path) -> bool:
    """Return whether `folder` has been used as a cache."""
    return any((folder / name).is_dir() for name in ENTRY_LISTERS)


def _list_paths(folder: Path) -> Sequence[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else ()


def _measure_folder(folder: Path) -> tuple[int, int, float]:
    """Return number of files, bytes and last use. Symbolic links do not count: the hub's point into the folder."""
    statuses = [status for path in folder.rglob("*") if (status := _get_status(path)) and S_ISREG(status.st_mode)]
    last_used = max(map(_get_last_used, statuses), default=0.0)
    return len(statuses), sum(status.st_size for status in statuses), last_used


def _get_last_used(status: os.stat_result) -> float:
    return max(status.st_atime, status.st_mtime)


def _get_status(path: Path) -> os.stat_result | None:
    """Return the status of a file, or None if another process has removed it."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _read_json(file: Path) -> dict[str, Any]:
    """Read a JSON object; return an empty one if the file cannot be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
