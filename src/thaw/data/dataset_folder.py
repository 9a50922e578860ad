"""Data sets that thaw has unpacked, converted or drawn into the cache folder: the hashes of their files are kept beside
them, so that damage is found and repaired.

That costs nothing when a data set is loaded, except the sizes of its files: the hashes of its images are known by then
(`thaw.data.file_index`).
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from thaw.data.image import IMAGE_SUFFIXES
from thaw.data.image_file import hash_image_file
from thaw.data.samples import Samples
from thaw.system.cache_checksums import DamagedEntryError, read_checked_json, write_checked_json
from thaw.system.cache_folder import build_folder_once, get_hashes_path, raise_write_errors
from thaw.system.reporter import Reporter

DATASETS_FOLDER = "datasets"  # in the cache folder
FileHashes = dict[str, list[int | str]]  # path below the folder -> bytes, hash from `hash_image_file`
LoadedSamples = TypeVar("LoadedSamples")


def build_dataset_folder(target: Path, fill: Callable[[Path], None]) -> Path:
    """Fill the folder `target` by `fill(folder)` if it does not exist, keep the hashes of its files, and return it.

    Raises:
        UserError: if the disk is full or the folder is not writable.
    """

    def fill_and_hash(folder: Path) -> None:
        fill(folder)
        write_checked_json(get_hashes_path(target), {"files": _hash_files(folder)})

    return build_folder_once(target, fill_and_hash)


def load_undamaged(
    load: Callable[[], LoadedSamples],
    get_samples: Callable[[LoadedSamples], Samples],
    cache_dir: Path,
    reporter: Reporter,
) -> LoadedSamples:
    """Return `load()`; if its samples are in a folder of the cache that is damaged, build that again and load again.

    Raises:
        UserError: as `load`. A damaged folder that cannot be built again stays.
    """
    loaded = load()
    samples, datasets = get_samples(loaded), cache_dir / DATASETS_FOLDER
    if not samples.root.is_relative_to(datasets) or samples.root == datasets:
        return loaded
    entry = datasets / samples.root.relative_to(datasets).parts[0]
    if not (path := _find_damaged(entry, samples)):
        return loaded
    damaged_folder = _move_aside(entry)
    reporter.warn(f"the data set in {entry} was damaged ({path}) and is made again")
    try:
        return load()
    except BaseException:
        if damaged_folder.is_dir() and not entry.exists():
            damaged_folder.replace(entry)
        raise
    finally:
        shutil.rmtree(damaged_folder, ignore_errors=True)


def _find_damaged(entry: Path, samples: Samples) -> str:
    """Return a file of `entry` that is not as it was written, or an empty string. Images count by the hashes of
    `samples`, other files are hashed."""
    root = samples.root.relative_to(entry).as_posix()
    prefix = "" if root == "." else f"{root}/"
    hashes = {f"{prefix}{path}": digest for path, digest in zip(samples.samples.paths, samples.hashes, strict=True)}
    for path, (size, file_hash) in _read_hashes(entry).items():
        if _get_size(f"{entry}/{path}") != size:
            return path
        is_image = path.lower().endswith(IMAGE_SUFFIXES)
        if (hashes.get(path, file_hash) if is_image else hash_image_file(entry / path)) != file_hash:
            return path
    return ""


def _get_size(file: str) -> int | None:
    """Return the bytes of a file, or None if there is none."""
    try:
        return os.stat(file).st_size  # noqa: PTH116 - Path is five times slower
    except OSError:
        return None


def _move_aside(entry: Path) -> Path:
    """Rename a damaged folder, as the partial folders that the next process removes."""
    damaged_folder = entry.with_name(f".{entry.name}.partial-damaged-{os.getpid()}")
    with raise_write_errors(entry), FileLock(entry.with_name(f".{entry.name}.lock")):
        if entry.is_dir() and _hash_files(entry) != _read_hashes(entry):  # no other process has made it again meanwhile
            entry.replace(damaged_folder)
    return damaged_folder


def _hash_files(folder: Path) -> FileHashes:
    files = [Path(parent, name) for parent, _, names in os.walk(folder) for name in names]
    with ThreadPoolExecutor() as pool:
        hashes = list(pool.map(hash_image_file, files))
    return {
        file.relative_to(folder).as_posix(): [file.stat().st_size, file_hash]
        for file, file_hash in sorted(zip(files, hashes, strict=True))
        if file.is_file()
    }


def _read_hashes(entry: Path) -> FileHashes:
    """Return the hashes of a folder. Without them, as those of version 0.2 are, nothing is known to be damaged."""
    try:
        files: FileHashes = read_checked_json(get_hashes_path(entry))["files"]
    except (FileNotFoundError, DamagedEntryError):
        return {}
    return files
