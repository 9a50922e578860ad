"""Folders of the cache are complete or absent, and are filled once."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from tests.filling import FILL_PROGRAM
from thaw.config.errors import UserError
from thaw.system.cache_folder import build_folder_once, compute_cache_key, resolve_cache_dir


def fill_with_one_file(folder: Path) -> None:
    (folder / "file").write_text("whole")


def fill_and_log(target: Path, barrier: Barrier) -> None:
    """Fill the folder in one of several processes; the log counts how often it is filled."""
    barrier.wait()

    def fill(folder: Path) -> None:
        with (target.parent / "log").open("a") as log:
            log.write("filled\n")
        time.sleep(0.3)
        fill_with_one_file(folder)

    assert (build_folder_once(target, fill) / "file").read_text() == "whole"


def list_partial_folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if "partial" in path.name]


def kill_while_filling(target: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", FILL_PROGRAM, target], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "filling\n"
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_process_killed_while_filling_leaves_no_target(tmp_path: Path) -> None:
    kill_while_filling(tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_after_a_kill_the_next_call_fills_the_folder_and_cleans_up(tmp_path: Path) -> None:
    kill_while_filling(tmp_path / "target")
    assert len(list_partial_folders(tmp_path)) == 1
    target = build_folder_once(tmp_path / "target", fill_with_one_file)
    assert [path.name for path in target.iterdir()] == ["file"]
    assert list_partial_folders(tmp_path) == []


def test_concurrent_processes_fill_the_folder_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(2)
    processes = [spawn.Process(target=fill_and_log, args=(tmp_path / "target", barrier)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "log").read_text() == "filled\n"


def test_an_existing_folder_is_not_filled_again(tmp_path: Path) -> None:
    build_folder_once(tmp_path / "target", fill_with_one_file)

    def fill(folder: Path) -> None:
        raise AssertionError("filled twice")

    assert build_folder_once(tmp_path / "target", fill) == tmp_path / "target"


@pytest.mark.parametrize("error_type", [ValueError, KeyboardInterrupt])
def test_a_fill_that_fails_leaves_nothing(tmp_path: Path, error_type: type[BaseException]) -> None:
    def fill(folder: Path) -> None:
        (folder / "first").write_text("half of it")
        raise error_type

    with pytest.raises(error_type):
        build_folder_once(tmp_path / "target", fill)
    assert not (tmp_path / "target").exists()
    assert list_partial_folders(tmp_path) == []


def test_a_folder_that_is_not_writable_is_a_user_error_with_path_and_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data\.cache_dir=DIR") as error_info:
        build_folder_once(tmp_path / "file" / "cache" / "target", fill_with_one_file)
    assert str(tmp_path / "file" / "cache" / "target") in str(error_info.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, the disk that is always full, on this system")
def test_a_full_disk_is_a_user_error_and_leaves_nothing(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "first").write_text("fits")
        Path("/dev/full").write_text("does not")

    with pytest.raises(UserError, match="No space left"):
        build_folder_once(tmp_path / "target", fill)
    assert not (tmp_path / "target").exists()


def test_other_users_may_read_a_complete_folder(tmp_path: Path) -> None:
    target = build_folder_once(tmp_path / "target", fill_with_one_file)
    assert target.stat().st_mode & 0o777 == 0o755


def test_the_configured_folder_precedes_the_environment_and_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "environment"))
    assert resolve_cache_dir(str(tmp_path / "configured")) == tmp_path / "configured"
    assert resolve_cache_dir(None) == tmp_path / "environment"
    monkeypatch.delenv("THAW_CACHE")
    assert resolve_cache_dir(None).name == "thaw"


def test_a_configured_folder_may_start_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_cache_dir("~/cache") == tmp_path / "cache"


def test_a_key_depends_on_values_and_not_on_their_order() -> None:
    key = compute_cache_key(size=3, names=["a", "b"])
    assert key == compute_cache_key(names=["a", "b"], size=3)
    assert (
        len(
            {
                key,
                compute_cache_key(size=4, names=["a", "b"]),
                compute_cache_key(size=3, names=["b", "a"]),
                compute_cache_key(size=3),
            }
        )
        == 4
    )
