"""Remember the hashes of a data set's files, so that only new and changed files are read again.

A file is known by its path, size, time of the last change (in ns) and inode, as in git's index. Two changes within the
resolution of a file system's clock leave the same time. So a file is remembered only if it is older than that when it
is hashed; git calls younger ones "racily clean" and reads them again too.
"""

from __future__ import annotations

import hashlib
import os
import time
from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

import numpy as np
from filelock import FileLock

from thaw.data.image_file import BrokenImageError, hash_reason, read_image_file
from thaw.data.sample_table import HASH_BYTES, NO_HASHES, HashTable, PathTable
from thaw.system.cache_checksums import DamagedEntryError, read_checked_arrays, write_checked_arrays
from thaw.system.cache_folder import compute_cache_key
from thaw.system.process import available_cpus
from thaw.system.reporter import SILENT, Reporter

INDEXES_FOLDER = "indexes"  # in the cache folder
FORMAT_VERSION = 2  # of the files; an index of another version is not read
RESOLUTION_NS = 2_000_000_000  # of FAT, the coarsest clock; that of other file systems is 1 s to 4 ms
CHUNK_SIZE = 256  # files that a thread hashes before it takes others
NO_FILE = (0, 0, 0)  # the status of what cannot be remembered: missing, empty, or not a regular file


@dataclass(frozen=True)
class IndexEntries:
    """Files with their hashes.

    Attributes:
        paths: relative to the root of the data set.
        status: size, time in ns and inode of each file, uint64 [files, 3].
        hashes: SHA-256 of each file, uint8 [files, 32].
    """

    paths: PathTable
    status: np.ndarray
    hashes: np.ndarray

    def subset(self, is_kept: np.ndarray) -> IndexEntries:
        """Return the files for which `is_kept`, bool [files], is true."""
        if is_kept.all():
            return self
        return IndexEntries(self.paths.subset(np.flatnonzero(is_kept)), self.status[is_kept], self.hashes[is_kept])

    def merge(self, other: IndexEntries) -> IndexEntries:
        """Return these files and those of `other`."""
        status, hashes = np.concatenate([self.status, other.status]), np.concatenate([self.hashes, other.hashes])
        return IndexEntries(PathTable(self.paths.text + other.paths.text), status, hashes)


NO_ENTRIES = IndexEntries(PathTable(b""), np.zeros((0, 3), dtype=np.uint64), NO_HASHES.digests)


class FileIndex:
    """Hashes files, and remembers the hashes in the cache folder `cache_dir`: a file for each root of a data set, which
    processes share. Without a folder nothing is remembered.

    Without `is_trusted`, all files are hashed; `changed` lists those that are not what was remembered of them.
    """

    def __init__(self, cache_dir: Path | None, reporter: Reporter = SILENT, *, is_trusted: bool = True) -> None:
        self._folder = cache_dir / INDEXES_FOLDER if cache_dir else None
        self._reporter, self._is_trusted = reporter, is_trusted
        self.changed: list[str] = []

    def hash_files(self, root: Path, paths: PathTable) -> HashTable:
        """Return the SHA-256 of each of the files `root/PATH`; of a file that cannot be read, that of the reason."""
        started_ns, status = time.time_ns(), _read_status(root, paths)
        hashes, is_known = self._look_up(root, paths, status)
        positions = np.flatnonzero(~is_known | (not self._is_trusted))
        new_hashes, is_readable = self._hash(root, [paths[position] for position in positions.tolist()])
        is_changed = is_known[positions] & (new_hashes != hashes[positions]).any(1)
        self.changed += [paths[position] for position in positions[is_changed].tolist()]
        hashes[positions] = new_hashes
        is_remembered = is_known.copy()
        is_remembered[positions] = is_readable & (status[positions, 1].astype(np.int64) < started_ns - RESOLUTION_NS)
        if (is_remembered & ~is_known).any() or is_changed.any():
            self._write(root, IndexEntries(paths, status, hashes).subset(is_remembered), paths)
        return HashTable(hashes)

    def _look_up(self, root: Path, paths: PathTable, status: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the hashes that are remembered, uint8 [files, 32], and which are, bool [files]."""
        hashes, entries = np.zeros((len(paths), HASH_BYTES), dtype=np.uint8), self._read(root, self._reporter)
        rows = entries.paths.find_positions(paths)
        is_known = (rows >= 0) & (status[:, 0] > 0)
        is_known[is_known] = (entries.status[rows[is_known]] == status[is_known]).all(1)
        hashes[is_known] = entries.hashes[rows[is_known]]
        return hashes, is_known

    def _hash(self, root: Path, paths: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """Return the hash of each file, uint8 [files, 32], and whether it can be read, bool [files]."""
        chunks = [paths[start : start + CHUNK_SIZE] for start in range(0, len(paths), CHUNK_SIZE)]
        if not chunks:
            return NO_ENTRIES.hashes, np.zeros(0, dtype=bool)
        digests, is_readable = bytearray(), bytearray()
        progress = self._reporter.progress("indexing images", len(paths))
        with ThreadPoolExecutor(available_cpus()) as pool, progress as advance:
            for results in pool.map(lambda chunk: [_hash_file(root / path) for path in chunk], chunks):
                digests += b"".join(digest for digest, _ in results)
                is_readable += bytes(can_read for _, can_read in results)
                advance(len(results))
        return np.frombuffer(digests, np.uint8).reshape(-1, HASH_BYTES), np.frombuffer(is_readable, bool)

    def _get_file(self, root: Path) -> Path | None:
        return (
            self._folder / f"{compute_cache_key(root=str(root), version=FORMAT_VERSION)}.npz" if self._folder else None
        )

    def _read(self, root: Path, reporter: Reporter) -> IndexEntries:
        file = self._get_file(root)
        if file is None:
            return NO_ENTRIES
        try:
            arrays = read_checked_arrays(file)
        except FileNotFoundError:
            return NO_ENTRIES
        except DamagedEntryError:
            reporter.warn(f"the hashes of files in {file} were damaged; the files are hashed again")
            return NO_ENTRIES
        return IndexEntries(PathTable(arrays["paths"].tobytes()), arrays["status"], arrays["hashes"])

    def _write(self, root: Path, entries: IndexEntries, looked_up: PathTable) -> None:
        """Write `entries`, and those of other files that still exist: other runs may have other images."""
        file = self._get_file(root)
        if file is None:
            return
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(file.with_name(f".{file.stem}.lock")):
                others = self._read(root, SILENT)
                is_other = looked_up.find_positions(others.paths) < 0
                is_other[is_other] = [os.path.lexists(_join(root, path)) for path in others.subset(is_other).paths]
                entries = entries.merge(others.subset(is_other))
                text = {"root": os.fsencode(root), "paths": entries.paths.text}
                arrays = {name: np.frombuffer(value, np.uint8) for name, value in text.items()}
                write_checked_arrays(file, **arrays, status=entries.status, hashes=entries.hashes)
        except OSError as error:
            self._reporter.warn(f"the hashes of files cannot be kept in {file}: {error.strerror or error}")


NO_INDEX = FileIndex(None)


def _join(root: Path, path: str) -> str:
    return os.path.join(root, path)  # noqa: PTH118 - Path is five times slower


def _hash_file(file: Path) -> tuple[bytes, bool]:
    """Return the hash of a file and whether it can be read."""
    try:
        with read_image_file(file) as content:
            return hashlib.sha256(content).digest(), True
    except BrokenImageError as error:
        return bytes.fromhex(hash_reason(error)), False


def _read_status(root: Path, paths: PathTable) -> np.ndarray:
    """Return size, time in ns and inode of each file, uint64 [files, 3]; NO_FILE for what cannot be remembered."""
    values, prefix = array("Q"), _join(root, "")
    for path in paths:
        try:
            status = os.stat(path if path[:1] == "/" else prefix + path)  # noqa: PTH116 - as above
        except OSError:
            values.extend(NO_FILE)
            continue
        is_file = S_ISREG(status.st_mode)
        values.extend((status.st_size, status.st_mtime_ns % 2**64, status.st_ino) if is_file else NO_FILE)
    return np.frombuffer(values, np.uint64).reshape(-1, len(NO_FILE))
