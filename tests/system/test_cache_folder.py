"""Folders that are complete or absent."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import time
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from tests.filling import FILLS_FOR_EVER
from thaw.config.errors import UserError
from thaw.system.cache_folder import build_folder_once, compute_cache_key, resolve_cache_dir


def fill_with_one_file(folder: Path) -> None:
    (folder / "file").write_text("whole")


def fill_and_log(target: Path, together: Barrier) -> None:
    """Run by several processes: the log counts how often the folder was filled."""
    together.wait()

    def fill(folder: Path) -> None:
        with (target.parent / "log").open("a") as log:
            log.write("filled\n")
        time.sleep(0.3)
        fill_with_one_file(folder)

    assert (build_folder_once(target, fill) / "file").read_text() == "whole"


def partial_folders(parent: Path) -> list[Path]:
    return [path for path in parent.iterdir() if "partial" in path.name]


def killed_while_filling(target: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", FILLS_FOR_EVER, target], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "filling\n"
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_process_killed_while_filling_leaves_no_target(tmp_path: Path) -> None:
    killed_while_filling(tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_after_a_kill_the_next_call_fills_anew_and_clears_up(tmp_path: Path) -> None:
    killed_while_filling(tmp_path / "target")
    assert len(partial_folders(tmp_path)) == 1
    target = build_folder_once(tmp_path / "target", fill_with_one_file)
    assert [path.name for path in target.iterdir()] == ["file"]
    assert partial_folders(tmp_path) == []


def test_two_processes_that_ask_together_fill_once(tmp_path: Path) -> None:
    spawn = multiprocessing.get_context("spawn")
    together = spawn.Barrier(2)
    processes = [spawn.Process(target=fill_and_log, args=(tmp_path / "target", together)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert (tmp_path / "log").read_text() == "filled\n"


def test_what_is_there_is_not_filled_again(tmp_path: Path) -> None:
    build_folder_once(tmp_path / "target", fill_with_one_file)

    def fill(folder: Path) -> None:
        raise AssertionError("filled twice")

    assert build_folder_once(tmp_path / "target", fill) == tmp_path / "target"


@pytest.mark.parametrize("raised", [ValueError, KeyboardInterrupt])
def test_a_fill_that_fails_leaves_nothing(tmp_path: Path, raised: type[BaseException]) -> None:
    def fill(folder: Path) -> None:
        (folder / "first").write_text("half of it")
        raise raised

    with pytest.raises(raised):
        build_folder_once(tmp_path / "target", fill)
    assert not (tmp_path / "target").exists()
    assert partial_folders(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_a_fault_of_the_user_with_its_path_and_the_fix(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"data\.cache_dir=DIR") as caught:
        build_folder_once(tmp_path / "file" / "cache" / "target", fill_with_one_file)
    assert str(tmp_path / "file" / "cache" / "target") in str(caught.value)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full, the disk that is always full, on this system")
def test_a_full_disk_is_a_fault_of_the_user_and_leaves_nothing(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        (folder / "first").write_text("fits")
        Path("/dev/full").write_text("does not")

    with pytest.raises(UserError, match="No space left"):
        build_folder_once(tmp_path / "target", fill)
    assert not (tmp_path / "target").exists()


def test_other_users_may_read_a_complete_folder(tmp_path: Path) -> None:
    target = build_folder_once(tmp_path / "target", fill_with_one_file)
    assert target.stat().st_mode & 0o777 == 0o755


def test_the_configured_folder_comes_before_the_environment_and_the_environment_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "environment"))
    assert resolve_cache_dir(str(tmp_path / "configured")) == tmp_path / "configured"
    assert resolve_cache_dir(None) == tmp_path / "environment"
    monkeypatch.delenv("THAW_CACHE")
    assert resolve_cache_dir(None).name == "thaw"


def test_a_configured_folder_may_begin_with_a_tilde(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_cache_dir("~/cache") == tmp_path / "cache"


def test_a_key_changes_with_any_value_and_not_with_their_order() -> None:
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
