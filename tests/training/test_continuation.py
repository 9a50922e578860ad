"""Runs that go on elsewhere, with more epochs, or without the files that their results were in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY
from tests.images import write_image_folder
from tests.sweeps.runs import are_equal
from thaw.cli.main import main
from thaw.cli.train import launch
from thaw.inference.load import load_checkpoint
from thaw.runs.run import open_run

NETWORK = ("backbone=timm", "backbone.name=test_efficientnet", "strategy=scratch", "scheduler=constant")
RECIPE = (*TINY[6:], *NETWORK, "dataset=folder", "dataset.image_size=32", "augment=crop_flip", "head.dropout=0.3")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `moved`, images that were in another place when `run` was trained for two epochs."""
    folder = tmp_path_factory.mktemp("continuation")
    data = write_image_folder(folder / "data", {"train": 8, "val": 4, "test": 4}, classes=("ants", "bees"))
    assert launch([*RECIPE, f"dataset.root={data}", f"hydra.run.dir={folder / 'run'}"]) == 0
    data.rename(folder / "moved")
    return folder


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Path:
    """Return a copy of the run that a test may change."""
    return shutil.copytree(folder / "run", tmp_path / "run")


def read_json(file: Path) -> Any:
    return json.loads(file.read_text())


def test_a_finished_run_gets_more_epochs_where_the_data_have_moved(folder: Path, run: Path, tmp_path: Path) -> None:
    changes = [f"dataset.root={folder / 'moved'}", "trainer.epochs=3"]
    assert launch([*RECIPE, *changes, f"hydra.run.dir={tmp_path / 'whole'}"]) == 0
    assert launch([f"resume={run}", *changes]) == 0
    assert are_equal(run, tmp_path / "whole")
    assert read_json(run / "metrics.json")["val"] == read_json(tmp_path / "whole" / "metrics.json")["val"]
    record = read_json(run / "run.json")
    assert record["resumed"][0]["overrides"] == changes
    assert record["command"]
    assert record["resumed"][0]["command"]
    assert open_run(run).recipe.dataset.root == str(folder / "moved")


@pytest.mark.parametrize(("is_old", "decoding"), [(True, "full"), (False, "scaled")])
def test_a_run_goes_on_with_the_decoding_that_it_began_with(
    is_old: bool, decoding: str, folder: Path, run: Path
) -> None:
    record = read_json(run / "run.json")
    if is_old:  # version 0.2 and older recorded none
        del record["data"]["decoding"]
        (run / "run.json").write_text(json.dumps(record))
    assert launch([f"resume={run}", f"dataset.root={folder / 'moved'}", "trainer.epochs=3"]) == 0
    assert read_json(run / "run.json")["data"]["decoding"] == decoding
    assert load_checkpoint(run).preprocessing.decoding == decoding


@pytest.mark.parametrize("file", ["metrics.json", "predictions.csv"])
def test_a_run_whose_results_are_gone_is_evaluated_again(
    file: str, folder: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / file).unlink()
    assert main(["report", str(run)]) == 2
    assert f"fix:   `thaw resume {run}`" in capsys.readouterr().err
    assert main(["resume", str(run), f"dataset.root={folder / 'moved'}"]) == 0
    assert "epoch" not in capsys.readouterr().out.split("parameters")[1].split("test accuracy")[0]
    assert (run / "predictions.csv").read_bytes() == (folder / "run" / "predictions.csv").read_bytes()
    assert read_json(run / "metrics.json")["test"] == read_json(folder / "run" / "metrics.json")["test"]
    assert main(["report", str(run)]) == 0


def test_other_images_are_refused_and_the_run_stays_as_it_was(
    folder: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    others = shutil.copytree(folder / "moved", tmp_path / "others")
    next((others / "train" / "ants").iterdir()).unlink()
    files = {name: (run / name).read_bytes() for name in ("run.json", "config.yaml")}
    assert launch([f"resume={run}", f"dataset.root={others}", "trainer.epochs=3"]) == 2
    assert "the data set is not the one that this run began with" in capsys.readouterr().err
    assert {name: (run / name).read_bytes() for name in files} == files


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["trainer.epochs=1"], "2 epochs are trained"),
        (["trainer.epochs=2"], "this run is done"),
        ([], "trainer.epochs=4 beside it trains more epochs"),
        (["seed=1"], "a resumed run keeps its recipe"),
        (["optimizer.learning_rate=1"], "a resumed run keeps its recipe"),
        (["trainer.epoch=4"], "trainer.epochs=4"),
        (["trainer.epochs=x"], "trainer.epochs=x"),
    ],
)
def test_what_a_finished_run_cannot_do_is_answered_with_what_it_can(
    overrides: list[str], message: str, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["resume", str(run), *overrides]) == 2
    assert message in capsys.readouterr().err


def test_a_job_of_a_sweep_keeps_its_epochs(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run.parent / "sweep.json").write_text('{"arguments": ["-m", "seed=0,1"], "jobs": 2}')
    assert main(["resume", str(run), "trainer.epochs=4"]) == 2
    assert "a job of a sweep" in capsys.readouterr().err


@pytest.mark.long
def test_another_schedule_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = (*TINY, *NETWORK[:3], "scheduler=cosine", "trainer.epochs=1", "scheduler.warmup_epochs=0")
    assert launch([*recipe, f"hydra.run.dir={tmp_path / 'run'}"]) == 0
    assert launch([f"resume={tmp_path / 'run'}", "trainer.epochs=2"]) == 0
    assert "the first 1 epochs had the schedule of 1 epochs" in capsys.readouterr().out
