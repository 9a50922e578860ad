"""Folders that cannot be written, and what a run leaves that did not start."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.images import write_image_folder
from thaw.cli.train import launch
from thaw.runs.run import open_run
from thaw.training.callbacks.history import HistoryCallback

NETWORK = ("backbone=timm", "backbone.name=test_efficientnet", "strategy=scratch", "trainer.epochs=1")
RECIPE = (*TINY, *NETWORK)
SMALL_DISK_KIB = 300  # holds config.yaml and run.json, and no checkpoint


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Return the folder of a file system of SMALL_DISK_KIB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_KIB}k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_an_output_folder_that_is_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert launch([*RECIPE, f"output_dir={tmp_path / 'file'}"]) == 2
    errors = capsys.readouterr().err
    assert "the output folder cannot be written" in errors
    assert "fix:   another output_dir" in errors
    assert launch([*RECIPE, f"output_dir={tmp_path / 'file'}", "-m", "seed=0,1"]) == 2
    assert "the output folder cannot be written" in capsys.readouterr().err


def test_a_folder_of_the_system_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert launch([*RECIPE, "output_dir=/proc/thaw"]) == 2
    assert "/proc/thaw" in capsys.readouterr().err


def test_a_full_disk_is_an_error_that_says_how_to_go_on(small_disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch([*RECIPE, f"hydra.run.dir={small_disk / 'run'}"]) == 2
    errors = capsys.readouterr().err
    assert "the disk is full" in errors
    assert f"free some space, then resume={small_disk / 'run'}" in errors
    assert open_run(small_disk / "run").status in ("failed", "running")


def test_a_run_whose_folder_is_removed_ends_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write = HistoryCallback.on_validation_start

    def remove_and_write(callback: HistoryCallback, *arguments: object) -> None:
        shutil.rmtree(callback.run.directory)
        write(callback, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(HistoryCallback, "on_validation_start", remove_and_write)
    assert launch([*RECIPE, f"hydra.run.dir={tmp_path / 'run'}"]) == 2
    assert "the folder was removed while the run wrote into it" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_that_never_started_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_image_folder(tmp_path / "data", {"train": 4, "test": 2}, classes=("ants", "bees"))
    (data / "train" / "ants" / "00.png").write_bytes(b"")
    recipe = (*TINY[6:], *NETWORK, "dataset=folder", f"dataset.root={data}", "dataset.image_size=32")
    assert launch([*recipe, f"output_dir={tmp_path / 'outputs'}"]) == 2
    assert not (tmp_path / "outputs").exists()
    assert "train/ants/00.png" in capsys.readouterr().err
    assert launch([*recipe, f"output_dir={tmp_path / 'outputs'}", "trainer.epochs=x"]) == 2
    assert not (tmp_path / "outputs").exists()
