"""A sweep: each job as if it were alone, failures told, what is missing run by `thaw resume`."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from tests.conftest import TINY
from tests.sweep.runs import SMALL, find_jobs, are_equal, find_sweep
from tests.training.killed import killed_in_epoch
from thaw.cli.train import launch
from thaw.sweep.record import read_jobs, read_sweep
from thaw.training.evaluation import predict_splits


@pytest.mark.parametrize("order", ["lp_ft,scratch,fixed", pytest.param("fixed,lp_ft,scratch", marks=pytest.mark.long)])
def test_each_of_nine_jobs_equals_its_solo_run_to_the_last_bit(
    alone: dict[str, Path], order: str, tmp_path: Path
) -> None:
    seeds = "0,1,2" if order.startswith("lp") else "2,0,1"
    assert launch(["-m", *SMALL, f"strategy={order}", f"seed={seeds}", f"output_dir={tmp_path}"]) == 0
    jobs = find_jobs(find_sweep(tmp_path))
    assert set(jobs) == set(alone)
    assert [name for name in jobs if not are_equal(jobs[name], alone[name])] == []


def test_switches_of_one_job_do_not_reach_the_next(tmp_path: Path) -> None:
    before = ["trainer.deterministic=true,false", "trainer.precision=64-true,32-true", "strategy=fixed"]
    small = (*TINY, "trainer.epochs=1", "dataset.train=3")
    assert launch(["-m", *small, *before, f"output_dir={tmp_path / 'sweep'}"]) == 0
    assert launch([*small, "trainer.deterministic=true", "strategy=fixed", f"output_dir={tmp_path / 'alone'}"]) == 0
    (record,) = (tmp_path / "alone").rglob("run.json")
    jobs = find_jobs(find_sweep(tmp_path / "sweep"))
    assert are_equal(jobs["trainer.deterministic=True,trainer.precision=32-true"], record.parent)


def test_a_failed_and_a_killed_job_are_made_up_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["-m", *(one for one in TINY if "epochs" not in one), "strategy=lp_ft", "trainer.epochs=2,3,4"]
    assert launch([*words, f"output_dir={tmp_path / 'undisturbed'}"]) == 0
    killed_in_epoch(3, [*words, f"output_dir={tmp_path / 'disturbed'}"])
    directory = find_sweep(tmp_path / "disturbed")
    assert [job.status for job in read_jobs(directory)] == ["done", "running", "missing"]
    untouched = (directory / "0_trainer.epochs=2" / "metrics.json").stat().st_mtime_ns

    with monkeypatch.context() as broken:
        broken.setattr("thaw.training.train.predict_splits", fail_with_four_epochs)
        assert launch([f"resume={directory}"]) == 1
    assert [job.status for job in read_jobs(directory)] == ["done", "done", "failed"]
    told = capsys.readouterr().err
    assert "job 3 failed: trainer.epochs=4\n  ZeroDivisionError: made by the test" in told
    assert f"1 of 3 jobs are not done. To run these alone: thaw resume {directory}" in told
    assert "Traceback" in json.loads((directory / "2_trainer.epochs=4" / "run.json").read_text())["error"]

    assert launch([f"resume={directory}"]) == 0
    assert (directory / "0_trainer.epochs=2" / "metrics.json").stat().st_mtime_ns == untouched
    jobs, undisturbed = find_jobs(directory), find_jobs(find_sweep(tmp_path / "undisturbed"))
    assert len(jobs) == 3
    assert [name for name in jobs if not are_equal(jobs[name], undisturbed[name])] == []
    assert read_comparison(directory) == read_comparison(find_sweep(tmp_path / "undisturbed"))


def read_comparison(sweep: Path) -> list[dict[str, str]]:
    """The rows of its comparison, without what took how long."""
    with (sweep / "comparison.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3
    timed = ("wall_s", "train_s", "cache_s", "images_per_s")
    return [{key: value for key, value in row.items() if key not in timed} for row in rows]


def fail_with_four_epochs(trainer: pl.Trainer, *rest: Any) -> Any:
    if trainer.max_epochs == 4:
        raise ZeroDivisionError("made by the test")
    return predict_splits(trainer, *rest)


def test_a_job_that_cannot_begin_has_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    taken = tmp_path / "file"
    taken.write_text("no folder")
    sweep = ["-m", *TINY, "trainer.epochs=1", f"data.cache_dir={taken},{tmp_path / 'cache'}", f"output_dir={tmp_path}"]
    assert launch(sweep) == 1
    assert [job.status for job in read_jobs(find_sweep(tmp_path))] == ["failed", "done"]
    assert "job 1 failed" in capsys.readouterr().err


def test_a_sweep_knows_its_command(tmp_path: Path) -> None:
    words = ["-m", *TINY, "trainer.epochs=1", "strategy=fixed", "seed=range(0,2)", f"output_dir={tmp_path}"]
    assert launch(words) == 0
    sweep = read_sweep(find_sweep(tmp_path))
    assert sorted(sweep.arguments) == sorted(words)
    assert sweep.jobs == 2
