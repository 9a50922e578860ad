"""Write files and folders completely or not at all, even if the power fails meanwhile."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

NUM_SYNC_THREADS = 16  # concurrent fsyncs share commits of the file system's journal
UNSUPPORTED_ERRNOS = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)  # of file systems that cannot sync a folder


def write_atomically(file: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write `file` by `write(stream)`; if that fails, the file stays unchanged."""
    partial_file = file.with_name(file.name + ".partial")
    try:
        with partial_file.open("wb") as stream:
            write(stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial_file.replace(file)
        sync_folder(file.parent)
    finally:
        partial_file.unlink(missing_ok=True)


def compute_sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content as hexadecimal digits."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def write_text(file: Path, text: str) -> None:
    """Write `text` as UTF-8; file names in it that are not UTF-8 keep their bytes."""
    write_atomically(file, lambda stream: stream.write(text.encode("utf-8", "surrogateescape")))


def write_json(file: Path, content: Any) -> None:
    """Write `content` as JSON with an indent of 2."""
    write_text(file, json.dumps(content, indent=2) + "\n")


def replace_durably(source: Path, target: Path) -> None:
    """Rename the file or folder `source` to `target`, in the same folder, so that after a power failure `target` is as
    before or complete: everything in `source` reaches the disk first, and then the new name.

    Raises:
        OSError: if something cannot be written or renamed.
    """
    if source.is_dir():
        _sync_content(source)
    else:
        _sync(source)
    source.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Write the names in `folder` to the disk, on file systems that can."""
    if not hasattr(os, "O_DIRECTORY"):  # Windows cannot open folders, and writes names at once
        return
    try:
        _sync(folder)
    except OSError as error:
        if error.errno not in UNSUPPORTED_ERRNOS:
            raise


def _sync_content(folder: Path) -> None:
    """Write all files below `folder` and the names of all its folders to the disk; links have no content."""
    folders, files = list[Path](), list[Path]()
    for parent, _, names in os.walk(folder):
        folders.append(Path(parent))
        files += [path for name in names if (path := Path(parent, name)).is_file() and not path.is_symlink()]
    with ThreadPoolExecutor(NUM_SYNC_THREADS) as pool:
        _exhaust(pool.map(_sync, files))
        _exhaust(pool.map(sync_folder, folders))


def _exhaust(results: Iterable[None]) -> None:
    """Wait for all results; the first error of any is raised."""
    for _ in results:
        pass


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
