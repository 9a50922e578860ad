"""Runs that were killed or interrupted, and continue."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, build_train_command, get_only_run
from tests.training.killed import kill_in_epoch
from thaw.cli.train import launch

# Dropout, a schedule and augmentation: everything random must be repeated exactly.
RECIPE = (
    *TINY,
    "trainer.epochs=4",
    "head.dropout=0.3",
    "augment=crop_flip",
    "trainer.gradient_clip_val=5.0",
)


def read_weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def read_outcome(run: Path) -> tuple[dict[str, object], list[dict[str, str]]]:
    """Return metrics without timing, and the history without seconds."""
    metrics = json.loads((run / "metrics.json").read_text())
    with (run / "history.csv").open(newline="") as stream:
        rows = [{key: value for key, value in row.items() if "seconds" not in key} for row in csv.DictReader(stream)]
    return {split: metrics[split] for split in ("val", "test")}, rows


def test_a_run_killed_in_an_epoch_and_resumed_gives_the_same_bits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch([*RECIPE, f"output_dir={tmp_path / 'whole'}"]) == 0
    expected_run = get_only_run(tmp_path / "whole")
    kill_in_epoch(3, [*RECIPE, f"output_dir={tmp_path / 'killed'}"])
    killed_run = get_only_run(tmp_path / "killed")
    assert json.loads((killed_run / "run.json").read_text())["status"] == "running"
    assert not (killed_run / "metrics.json").exists()

    capsys.readouterr()
    assert launch([f"resume={killed_run}"]) == 0

    assert "epoch 1/" not in capsys.readouterr().out, "epochs before the last checkpoint are not trained again"
    assert read_outcome(killed_run) == read_outcome(expected_run)
    assert all(torch.equal(read_weights(killed_run)[name], value) for name, value in read_weights(expected_run).items())
    assert json.loads((killed_run / "run.json").read_text())["status"] == "done"


def test_ctrl_c_is_recorded_and_the_message_says_how_to_continue(tmp_path: Path) -> None:
    process = subprocess.Popen(
        build_train_command(*RECIPE, "trainer.epochs=200", f"output_dir={tmp_path}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    for line in process.stdout:
        if line.startswith("epoch 2/"):
            break
    process.send_signal(signal.SIGINT)
    process.stdout.read()
    errors = process.stderr.read()
    assert process.wait() == 130
    run = get_only_run(tmp_path)
    assert f"resume={run}" in errors
    assert "Traceback" not in errors
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert (run / "checkpoints" / "last.ckpt").is_file()


def test_a_finished_run_cannot_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch([*TINY, "trainer.epochs=1", f"output_dir={tmp_path}"]) == 0
    assert launch([f"resume={get_only_run(tmp_path)}"]) == 2
    assert "this run is done" in capsys.readouterr().err


def test_a_run_in_progress_cannot_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    kill_in_epoch(2, [*RECIPE, f"output_dir={tmp_path}"])
    run = get_only_run(tmp_path)
    handle = os.open(run, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assert launch([f"resume={run}"]) == 2
    finally:
        os.close(handle)
    assert "another process trains in it" in capsys.readouterr().err


def test_changed_images_prevent_resuming(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.images import write_image_folder

    data = write_image_folder(tmp_path / "data", {"train": 6, "test": 3}, classes=("ants", "bees"))
    recipe = ("dataset=folder", f"dataset.root={data}", "dataset.image_size=32", *TINY[6:])
    kill_in_epoch(2, [*recipe, f"output_dir={tmp_path / 'outputs'}"])
    run = get_only_run(tmp_path / "outputs")
    image = next((data / "train" / "ants").iterdir())
    image.write_bytes(next((data / "train" / "bees").iterdir()).read_bytes())
    assert launch([f"resume={run}"]) == 2
    assert "not the one that this run began with" in capsys.readouterr().err
