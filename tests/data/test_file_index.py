"""Hashes of files are remembered as git's index does: what has changed is read again, and nothing else."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.damage import DAMAGES, WarningReporter
from thaw.config.compose import compose_recipe
from thaw.data.factory import load_fold_samples, load_samples
from thaw.data.file_index import RESOLUTION_NS, FileIndex
from thaw.data.sample_table import PathTable
from thaw.system.cache_entries import list_entries

HOUR_NS = 3_600_000_000_000
NAMES = [f"ant/{number}.png" for number in range(5)]


def write_old(file: Path, content: bytes, age_ns: int = HOUR_NS) -> None:
    """Write a file whose last change was `age_ns` ago."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
    changed_ns = time.time_ns() - age_ns
    os.utime(file, ns=(changed_ns, changed_ns))


def overwrite_secretly(file: Path, content: bytes) -> None:
    """Change the bytes of a file, but neither size nor time."""
    status = file.stat()
    assert len(content) == status.st_size
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name in NAMES:
        write_old(tmp_path / "data" / name, f"content of {name}".encode())
    return tmp_path / "data"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def read_files(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read, which the tests clear."""
    from thaw.data import file_index

    names, hash_file = list[str](), file_index._hash_file
    monkeypatch.setattr(file_index, "_hash_file", lambda file: names.append(file.name) or hash_file(file))
    return names


def hash_all(cache: Path | None, root: Path, names: list[str] = NAMES) -> list[str]:
    return list(FileIndex(cache).hash_files(root, PathTable.build(names)))


def expect(root: Path, names: list[str] = NAMES) -> list[str]:
    return [hashlib.sha256((root / name).read_bytes()).hexdigest() for name in names]


def get_index(cache: Path) -> Path:
    (file,) = (cache / "indexes").glob("*.npz")
    return file


def test_files_are_read_once(root: Path, cache: Path, read_files: list[str]) -> None:
    assert hash_all(cache, root) == expect(root)
    assert len(read_files) == 5
    assert hash_all(cache, root) == expect(root)
    assert hash_all(cache, root, NAMES[::-2]) == expect(root, NAMES[::-2])
    assert len(read_files) == 5


def test_without_a_cache_all_files_are_read(root: Path, read_files: list[str]) -> None:
    assert hash_all(None, root) == hash_all(None, root) == expect(root)
    assert len(read_files) == 10


def test_new_and_changed_files_alone_are_read(root: Path, cache: Path, read_files: list[str]) -> None:
    hash_all(cache, root)
    read_files.clear()
    (root / NAMES[1]).write_bytes(b"Content of ant/1.png")  # of the same size
    write_old(root / "bee/new.png", b"new")
    os.utime(root / NAMES[2], ns=(0, 1))  # older than before
    assert hash_all(cache, root, [*NAMES, "bee/new.png"]) == expect(root, [*NAMES, "bee/new.png"])
    assert sorted(read_files) == ["1.png", "2.png", "new.png"]


def test_another_file_of_the_same_size_and_time_is_noticed_by_its_inode(root: Path, cache: Path) -> None:
    hash_all(cache, root)
    old_status = (root / NAMES[0]).stat()
    (root / "other.png").write_bytes(b"Content of ant/0.png")
    (root / "other.png").replace(root / NAMES[0])
    os.utime(root / NAMES[0], ns=(old_status.st_atime_ns, old_status.st_mtime_ns))
    assert (root / NAMES[0]).stat().st_size == old_status.st_size
    assert hash_all(cache, root) == expect(root)


@pytest.mark.parametrize("age_ns", [0, RESOLUTION_NS // 2, -HOUR_NS])
def test_a_change_within_the_resolution_of_the_clock_is_noticed(root: Path, cache: Path, age_ns: int) -> None:
    """A file is not remembered before another change would give it another time. A time in the future never is."""
    write_old(root / NAMES[0], b"first.", age_ns)
    assert hash_all(cache, root) == expect(root)
    overwrite_secretly(root / NAMES[0], b"second")
    assert hash_all(cache, root) == expect(root)


def test_the_limit_is_a_change_that_restores_size_and_time(root: Path, cache: Path) -> None:
    hash_all(cache, root)
    overwrite_secretly(root / NAMES[0], b"Content of ant/0.png")
    assert hash_all(cache, root) != expect(root)


def test_an_untrusted_index_names_what_changed_and_is_corrected(root: Path, cache: Path) -> None:
    hash_all(cache, root)
    overwrite_secretly(root / NAMES[0], b"Content of ant/0.png")
    write_old(root / NAMES[1], b"with another time, as it should be")
    index = FileIndex(cache, is_trusted=False)
    assert list(index.hash_files(root, PathTable.build(NAMES))) == expect(root)
    assert index.changed == [NAMES[0]]
    assert hash_all(cache, root) == expect(root)


def test_what_cannot_be_read_is_not_remembered(root: Path, cache: Path, read_files: list[str]) -> None:
    (root / NAMES[0]).write_bytes(b"")
    (root / NAMES[1]).unlink()
    names = [*NAMES, "ant"]
    first_hashes = hash_all(cache, root, names)
    assert len(set(first_hashes)) == len(names)
    read_files.clear()
    assert hash_all(cache, root, names) == first_hashes
    assert sorted(read_files) == ["0.png", "1.png", "ant"]


def test_runs_of_parts_of_a_data_set_keep_what_others_remember(root: Path, cache: Path, read_files: list[str]) -> None:
    hash_all(cache, root, NAMES[:3])
    hash_all(cache, root, NAMES[2:])
    read_files.clear()
    assert hash_all(cache, root) == expect(root)
    assert read_files == []
    (root / NAMES[0]).unlink()
    write_old(root / "new.png", b"new")
    hash_all(cache, root, ["new.png"])
    (entry,) = list_entries(cache)
    assert (entry.kind, entry.description) == ("indexes", f"hashes of 5 files below {root}")


def test_paths_that_are_not_utf8_or_outside_of_the_root(root: Path, cache: Path, read_files: list[str]) -> None:
    names = ["ant/\udce9.png", str(root.parent / "outside.png")]
    for name in names:
        write_old(root / name, name.encode("utf-8", "surrogateescape"))
    assert hash_all(cache, root, names) == hash_all(cache, root, names) == expect(root, names)
    assert len(read_files) == 2


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_index_is_made_again_with_one_warning(
    root: Path, cache: Path, damage: Callable[[Path], None]
) -> None:
    hash_all(cache, root)
    damage(get_index(cache))
    reporter = WarningReporter()
    for _ in range(2):
        FileIndex(cache, reporter).hash_files(root, PathTable.build(NAMES))
    assert hash_all(cache, root) == expect(root)
    assert len(reporter.warnings) == (damage is not Path.unlink)
    assert all("were damaged" in warning for warning in reporter.warnings)


def test_an_index_that_cannot_be_written_is_a_warning(root: Path, cache: Path) -> None:
    cache.mkdir()
    (cache / "indexes").write_bytes(b"no folder")
    reporter = WarningReporter()
    hashes = FileIndex(cache, reporter).hash_files(root, PathTable.build(NAMES))
    assert list(hashes) == expect(root)
    assert "cannot be kept" in reporter.warnings[-1]


def test_concurrent_runs_share_an_index(root: Path, cache: Path, read_files: list[str]) -> None:
    """Locks of files hold between threads as between processes."""
    parts = [NAMES[:3], NAMES[2:]]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda part: hash_all(cache, root, part), parts * 2)) == [
            expect(root, part) for part in parts * 2
        ]
    read_files.clear()
    assert hash_all(cache, root) == expect(root)
    assert read_files == []
    assert [path.suffix for path in (cache / "indexes").iterdir() if not path.name.startswith(".")] == [".npz"]


def test_a_data_set_is_read_once_for_all_splits_and_folds(tmp_path: Path, read_files: list[str]) -> None:
    for label in "ab":
        for number in range(9):
            write_old(tmp_path / "data" / label / f"{number}.png", f"{label}{number}".encode())
    words = ["dataset=folder", f"dataset.root={tmp_path / 'data'}", f"data.cache_dir={tmp_path / 'cache'}"]
    first = load_samples(compose_recipe(words))
    read_files.clear()
    assert load_samples(compose_recipe(words)) == first
    other = load_samples(compose_recipe([*words, "dataset.split_seed=5"]))
    folds = load_fold_samples(compose_recipe([*words, "folds=3"]))
    assert read_files == []
    hashes = dict(zip(first.samples.paths, first.hashes, strict=True))
    assert all(dict(zip(each.samples.paths, each.hashes, strict=True)) == hashes for each in (other, *folds))
    write_old(tmp_path / "data/b/3.png", b"xx", 2 * HOUR_NS)
    assert load_samples(compose_recipe(words)).fingerprint != first.fingerprint
    assert read_files == ["3.png"]
