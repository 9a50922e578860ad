"""A run that was killed, or interrupted, and goes on."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, command, only_run
from tests.training.killed import killed_in_epoch
from thaw.cli.train import launch

# Dropout, a moving schedule and augmentation: whatever draws by chance must draw the same again.
RECIPE = (
    *TINY,
    "trainer.epochs=4",
    "head.dropout=0.3",
    "augment=crop_flip",
    "trainer.gradient_clip_val=5.0",
)


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state


def outcome(run: Path) -> tuple[dict[str, object], list[dict[str, str]]]:
    """Metrics without timing, and the history without seconds."""
    metrics = json.loads((run / "metrics.json").read_text())
    with (run / "history.csv").open(newline="") as stream:
        rows = [{key: value for key, value in row.items() if "seconds" not in key} for row in csv.DictReader(stream)]
    return {split: metrics[split] for split in ("val", "test")}, rows


def test_killed_in_the_middle_of_an_epoch_and_resumed_gives_the_same_to_the_last_bit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch([*RECIPE, f"output_dir={tmp_path / 'whole'}"]) == 0
    whole = only_run(tmp_path / "whole")
    killed_in_epoch(3, [*RECIPE, f"output_dir={tmp_path / 'killed'}"])
    killed = only_run(tmp_path / "killed")
    assert json.loads((killed / "run.json").read_text())["status"] == "running"
    assert not (killed / "metrics.json").exists()

    capsys.readouterr()
    assert launch([f"resume={killed}"]) == 0

    assert "epoch 1/" not in capsys.readouterr().out, "epochs before the last checkpoint are not trained again"
    assert outcome(killed) == outcome(whole)
    assert all(torch.equal(weights(killed)[name], value) for name, value in weights(whole).items())
    assert json.loads((killed / "run.json").read_text())["status"] == "done"


def test_ctrl_c_is_recorded_and_says_how_to_go_on(tmp_path: Path) -> None:
    process = subprocess.Popen(
        command(*RECIPE, "trainer.epochs=200", f"output_dir={tmp_path}"),
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
    said = process.stderr.read()
    assert process.wait() == 130
    run = only_run(tmp_path)
    assert f"resume={run}" in said
    assert "Traceback" not in said
    assert json.loads((run / "run.json").read_text())["status"] == "interrupted"
    assert (run / "checkpoints" / "last.ckpt").is_file()


def test_a_run_that_is_done_cannot_be_resumed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch([*TINY, "trainer.epochs=1", f"output_dir={tmp_path}"]) == 0
    assert launch([f"resume={only_run(tmp_path)}"]) == 2
    assert "this run is done" in capsys.readouterr().err


def test_a_run_under_way_cannot_be_resumed_beside_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import fcntl

    killed_in_epoch(2, [*RECIPE, f"output_dir={tmp_path}"])
    run = only_run(tmp_path)
    handle = os.open(run, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    try:
        assert launch([f"resume={run}"]) == 2
    finally:
        os.close(handle)
    assert "another process trains in it" in capsys.readouterr().err


def test_images_that_changed_since_refuse_the_resume(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from tests.images import image_folder

    data = image_folder(tmp_path / "data", {"train": 6, "test": 3}, classes=("ants", "bees"))
    recipe = ("dataset=folder", f"dataset.root={data}", "dataset.image_size=32", *TINY[6:])
    killed_in_epoch(2, [*recipe, f"output_dir={tmp_path / 'outputs'}"])
    run = only_run(tmp_path / "outputs")
    image = next((data / "train" / "ants").iterdir())
    image.write_bytes(next((data / "train" / "bees").iterdir()).read_bytes())
    assert launch([f"resume={run}"]) == 2
    assert "not the one that this run began with" in capsys.readouterr().err
