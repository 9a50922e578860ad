"""Failures of trainings and their error messages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import TINY, get_only_run
from tests.images import write_image_folder
from thaw.cli.train import launch


def test_a_loss_that_is_not_finite_stops_the_run_with_epoch_rates_and_fixes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("optimizer=sgd", "optimizer.learning_rate=1e30", "scheduler=constant")
    assert launch([*TINY, *overrides, f"output_dir={tmp_path}"]) == 2
    errors = capsys.readouterr().err
    assert "the loss is not finite" in errors
    assert "epoch 1, step" in errors
    assert "head 1e+31" in errors
    assert "optimizer.learning_rate=1e+29" in errors
    record = json.loads((get_only_run(tmp_path) / "run.json").read_text())
    assert record["status"] == "failed"
    assert "not finite" in record["error"]


def test_images_that_cannot_be_decoded_are_all_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_image_folder(tmp_path / "data", {"train": 4, "test": 2}, classes=("ants", "bees"))
    (data / "train" / "ants" / "00.png").write_bytes(b"")
    content = (data / "test" / "bees" / "01.png").read_bytes()
    (data / "test" / "bees" / "01.png").write_bytes(content[: len(content) // 2])
    recipe = ("dataset=folder", f"dataset.root={data}", "dataset.image_size=32", *TINY[6:])
    assert launch([*recipe, f"output_dir={tmp_path / 'outputs'}"]) == 2
    errors = capsys.readouterr().err
    assert "train/ants/00.png: the file is empty" in errors
    assert "test/bees/01.png" in errors


def test_an_unknown_stage_is_reported_with_the_valid_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    override = "strategy.phases.all.train=[layer3]"
    assert launch([*TINY, override, f"output_dir={tmp_path}"]) == 2
    errors = capsys.readouterr().err
    assert "'layer3' selects no stage" in errors
    assert "stem, block1, block2" in errors


def test_after_a_failed_job_of_a_sweep_the_others_finish(tmp_path: Path) -> None:
    arguments = ("-m", "strategy.phases.all.train=[all],[layer9]", "trainer.epochs=1")
    assert launch([*TINY, *arguments, f"output_dir={tmp_path}"]) == 1
    records = sorted(tmp_path.rglob("run.json"))
    assert [json.loads(file.read_text())["status"] for file in records] == ["done", "failed"]
    jobs = [file.parent.name.split(",")[0] for file in records]
    assert jobs == ["0_strategy.phases.all.train=all", "1_strategy.phases.all.train=layer9"]


def test_a_bug_leaves_its_traceback_in_the_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("raised by the test")

    monkeypatch.setattr("thaw.training.train.predict_splits", fail)
    assert launch([*TINY, "trainer.epochs=1", f"output_dir={tmp_path}"]) == 1
    record = json.loads((get_only_run(tmp_path) / "run.json").read_text())
    assert record["status"] == "failed"
    assert "ZeroDivisionError: raised by the test" in record["error"]


def test_without_validation_images_the_last_epoch_is_the_best(tmp_path: Path) -> None:
    assert launch([*TINY, "dataset.val=0", f"output_dir={tmp_path}"]) == 0
    run = get_only_run(tmp_path)
    assert "val" not in json.loads((run / "metrics.json").read_text())
    assert (run / "checkpoints" / "best.ckpt").is_file()


def test_early_stopping_ends_a_run_that_does_not_improve(tmp_path: Path) -> None:
    overrides = ("strategy=fixed", "optimizer.learning_rate=1e-12", "trainer.early_stopping.patience=1")
    assert launch([*TINY, *overrides, "trainer.epochs=9", f"output_dir={tmp_path}"]) == 0
    rows = (get_only_run(tmp_path) / "history.csv").read_text().splitlines()
    assert len(rows) == 1 + 2
