"""Files and folders are on the disk before they are renamed into place: after a power failure only that counts."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from thaw.system.cache_folder import build_folder_once
from thaw.system.files import replace_durably, write_atomically, write_text


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of synced files and folders, and the new names of renamed ones, as they happen."""
    events, fsync, replace = [], os.fsync, Path.replace

    def record_sync(descriptor: int) -> None:
        fsync(descriptor)
        events.append(f"sync {Path(f'/proc/self/fd/{descriptor}').readlink().name}")

    def record_replace(source: Path, target: Path) -> Path:
        events.append(f"rename {target.name}")
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", record_sync)
    monkeypatch.setattr(Path, "replace", record_replace)
    return events


def test_a_file_is_synced_before_it_gets_its_name_and_the_name_afterwards(tmp_path: Path, events: list[str]) -> None:
    write_text(tmp_path / "file", "text")
    assert events == ["sync file.partial", "rename file", f"sync {tmp_path.name}"]


def test_a_file_that_another_library_wrote_is_synced_as_well(tmp_path: Path, events: list[str]) -> None:
    (tmp_path / "new").write_text("text")
    replace_durably(tmp_path / "new", tmp_path / "old")
    assert events == ["sync new", "rename old", f"sync {tmp_path.name}"]


def test_all_files_and_folders_of_a_cache_entry_are_synced_before_it_gets_its_name(
    tmp_path: Path, events: list[str]
) -> None:
    def fill(folder: Path) -> None:
        (folder / "train" / "ants").mkdir(parents=True)
        (folder / "train" / "ants" / "1.png").write_bytes(b"1")
        (folder / "labels.csv").write_bytes(b"2")
        (folder / "link").symlink_to("labels.csv")

    build_folder_once(tmp_path / "entry", fill)
    *before, rename, after = events
    assert (rename, after) == ("rename entry", f"sync {tmp_path.name}")
    names = {event.removeprefix("sync ") for event in before}
    assert {"1.png", "labels.csv", "ants", "train"} < names
    assert any(name.startswith(".entry.partial-") for name in names)
    assert "link" not in names


def test_a_file_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")

    def fail(stream: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(tmp_path / "file", fail)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]
