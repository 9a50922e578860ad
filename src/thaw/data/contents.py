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

ABOUT = "meta.json"  # of features; its time of change is when they were used last
NAMED = ("dataset", "backbone", "stage")  # of what ABOUT says
KEYED = re.compile(r"(?:.+-)?[0-9a-f]{16}")  # the names of complete folders, `cache.key_of` behind an optional word
PARTIAL = re.compile(r"\.(.+)\.partial-[^/]+")  # of a folder that is filled, or was until a kill
TIMM = re.compile(r"models--.+")  # a repository of the Hugging Face hub


@dataclass(frozen=True)
class Entry:
    """One thing to clear: `key` is its name, `size` in bytes, `used` the last use that the file system knows of in
    seconds since 1970, `what` it is for a person. `locks` are held by whoever fills it."""

    kind: str
    key: str
    path: Path
    size: int
    used: float
    what: str
    locks: tuple[Path, ...]


def contents(cache: Path) -> list[Entry]:
    """All that thaw has put into `cache`, by kind and last use. Other files there are left out: `data.cache` may be a
    folder with things of its user, who has named some as thaw does."""
    found = [entry for kind, look in KINDS.items() for entry in look(kind, cache / kind)]
    return sorted(found, key=lambda one: (list(KINDS).index(one.kind), one.used))


def complete(kind: str, cache: Path) -> list[Entry]:
    """What is whole of one kind."""
    return [entry for entry in KINDS[kind](kind, cache / kind) if not PARTIAL.fullmatch(entry.key)]


def is_busy(entry: Entry) -> bool:
    """Whether a process fills it now, or this one may not write there."""
    try:
        with ExitStack() as stack:
            _hold(entry, stack)
    except (Timeout, OSError):
        return True
    return False


def remove(entry: Entry) -> None:
    """Takes it out whole: a process that looks meanwhile finds it complete or absent, and one that has its files open
    goes on reading them.

    Raises:
        Timeout: where a process fills it.
        OSError: where it cannot be removed.
    """
    with ExitStack() as stack:
        _hold(entry, stack)
        if entry.path.is_symlink() or entry.path.is_file():
            entry.path.unlink()
        elif entry.path.is_dir():  # else another process was faster
            shutil.rmtree(entry.path if PARTIAL.fullmatch(entry.key) else _aside(entry))


def _aside(entry: Entry) -> Path:
    """The whole folder under a name by which a kill leaves a partial one, to be cleared too."""
    aside = Path(tempfile.mkdtemp(prefix=f".{entry.key}.partial-", dir=entry.path.parent))
    return entry.path.replace(aside)


def _hold(entry: Entry, stack: ExitStack) -> None:
    for lock in entry.locks:
        stack.enter_context(FileLock(lock, timeout=0))


def _folders(describe: Callable[[Path, int], str]) -> Callable[[str, Path], Iterator[Entry]]:
    def look(kind: str, shelf: Path) -> Iterator[Entry]:
        for path in _inside(shelf):
            partial = PARTIAL.fullmatch(path.name)
            if path.is_dir() and (partial or KEYED.fullmatch(path.name)):
                lock = shelf / f".{partial[1] if partial else path.name}.lock"
                files, size, used = _measured(path)
                about = _status(path / ABOUT)
                used = about.st_mtime if about else used
                what = "half filled" if partial else describe(path, files)
                yield Entry(kind, path.name, path, size, used, what, (lock,))

    return look


def _files(kind: str, shelf: Path) -> Iterator[Entry]:
    """Files that `fetch.fetched` or Kaggle's client has got, which is to say: those with a lock beside them."""
    for path in _inside(shelf):
        whole = path.name.removesuffix(".part")
        locks = [shelf / f".{name}.lock" for name in (whole, Path(whole).stem)]  # Kaggle's is without .zip
        held = tuple(lock for lock in locks if lock.is_file())
        if path.is_file() and held and not path.name.startswith("."):
            status, what = path.stat(), "broken off; fetching it goes on from there" if whole != path.name else ""
            yield Entry(kind, path.name, path, status.st_size, max(status.st_atime, status.st_mtime), what, held)


def _weights(kind: str, shelf: Path) -> Iterator[Entry]:
    """torchvision's files, and timm's repositories as the hub's client keeps them, with its locks."""
    yield from _files(kind, shelf)
    for path in _inside(shelf / "timm"):
        if path.is_dir() and TIMM.fullmatch(path.name):
            _, size, used = _measured(path)
            locks = tuple(sorted((shelf / "timm" / ".locks" / path.name).glob("*.lock")))
            yield Entry(kind, path.name, path, size, used, "timm", locks)


def _inside(folder: Path) -> Sequence[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else ()


def _measured(folder: Path) -> tuple[int, int, float]:
    """How many files, bytes, and the last use; the links that the hub's client makes lead to files beside them."""
    found = [one for path in folder.rglob("*") if (one := _status(path)) and S_ISREG(one.st_mode)]
    used = max((max(one.st_atime, one.st_mtime) for one in found), default=0.0)
    return len(found), sum(one.st_size for one in found), used


def _status(path: Path) -> os.stat_result | None:
    """None where another process has taken it away meanwhile."""
    try:
        return path.lstat()
    except FileNotFoundError:
        return None


def _dataset(path: Path, files: int) -> str:
    return f"{files:,} file{'s' * (files != 1)}"


def _decoded(path: Path, files: int) -> str:
    try:
        return f"{len(np.load(path / 'table.npy', mmap_mode='r', allow_pickle=False)):,} images"
    except (OSError, ValueError):
        return "unreadable"


def _features(path: Path, files: int) -> str:
    about = _read(path / ABOUT)
    sides = [about.get("rows"), *about.get("shape", ())]
    shape = " x ".join(str(side) for side in sides if side is not None)
    return ", ".join(str(one) for one in (*map(about.get, NAMED), shape, about.get("dtype")) if one) or "unreadable"


def _read(file: Path) -> dict[str, Any]:
    """Empty where it cannot be read."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _layouts(kind: str, shelf: Path) -> Iterator[Entry]:
    """Small files of what was measured once, each written whole."""
    for path in _inside(shelf):
        if path.suffix == ".json" and KEYED.fullmatch(path.stem) and (status := _status(path)):
            about = _read(path)
            what = ", ".join(str(about[name]) for name in ("architecture", "size") if name in about)
            yield Entry(kind, path.stem, path, status.st_size, max(status.st_atime, status.st_mtime), what, ())


KINDS: dict[str, Callable[[str, Path], Iterator[Entry]]] = {
    "downloads": _files,
    "datasets": _folders(_dataset),
    "decoded": _folders(_decoded),
    "features": _folders(_features),
    "weights": _weights,
    "measured": _layouts,
}
