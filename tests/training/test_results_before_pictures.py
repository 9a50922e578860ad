"""Results are written before anything is drawn, and a drawing that fails is a warning."""

from __future__ import annotations

import csv
import errno
import json
from pathlib import Path

import pytest

from tests.conftest import TINY, get_only_run
from thaw.cli.train import launch
from thaw.training import evaluation

RECIPE = (*TINY, "strategy=fixed", "trainer.epochs=1")


def test_a_drawing_that_fails_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object) -> None:
        (run,) = tmp_path.rglob("run.json")
        assert (run.parent / "metrics.json").is_file()
        raise ValueError("a name that cannot be drawn")

    monkeypatch.setattr(evaluation, "save_confusion_matrix", fail)
    assert launch([*RECIPE, f"output_dir={tmp_path}"]) == 0
    run = get_only_run(tmp_path)
    assert json.loads((run / "run.json").read_text())["status"] == "done"
    assert {path.name for path in (run / "plots").iterdir()} == {"samples.jpg", "worst.jpg", "curves.png"}
    assert (run / "report.html").is_file()
    warnings = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning:")]
    assert len(warnings) == 1
    assert "confusion_matrix.png" in warnings[0]
    assert "ValueError: a name that cannot be drawn" in warnings[0]


def test_a_full_disk_is_an_error_also_while_drawing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(evaluation, "save_curves", fail)
    assert launch([*RECIPE, f"output_dir={tmp_path}"]) == 2
    assert "the disk is full" in capsys.readouterr().err
    assert (get_only_run(tmp_path) / "metrics.json").is_file()


def test_labels_with_markup_and_line_breaks_train_without_a_warning(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.images import write_image_folder

    names = ("Ba$$in", "US$_to_CA$", "[v2]", "a_b^c")
    root = write_image_folder(tmp_path / "data", {"train": 6, "test": 2}, names)
    overrides = [override for override in RECIPE if not override.startswith("dataset.")]
    folder = ["dataset=folder", f"dataset.root={root}", "dataset.image_size=32"]
    assert launch([*overrides, *folder, f"output_dir={tmp_path / 'outputs'}"]) == 0
    assert "could not be drawn" not in capsys.readouterr().out
    run = get_only_run(tmp_path / "outputs")
    with (run / "predictions.csv").open(encoding="utf-8", newline="") as stream:
        assert {row["label"] for row in csv.DictReader(stream)} == set(names)
    assert {path.name for path in (run / "plots").iterdir()} == {
        "confusion_matrix.png",
        "curves.png",
        "samples.jpg",
        "worst.jpg",
    }
