"""A sweep: each job equals a single run, failures are reported, and `thaw resume` runs the missing jobs."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from tests.conftest import TINY
from tests.sweeps.runs import SMALL, are_equal, find_jobs, find_sweep
from tests.training.killed import kill_in_epoch
from thaw.cli.train import launch
from thaw.sweeps.record import read_jobs, read_sweep
from thaw.training.evaluation import predict_splits


@pytest.mark.long
@pytest.mark.parametrize("order", ["lp_ft,scratch,fixed", "fixed,lp_ft,scratch"])
def test_each_of_nine_jobs_equals_its_solo_run_to_the_last_bit(
    solo_runs: dict[str, Path], order: str, tmp_path: Path
) -> None:
    seeds = "0,1,2" if order.startswith("lp") else "2,0,1"
    assert launch(["-m", *SMALL, f"strategy={order}", f"seed={seeds}", f"output_dir={tmp_path}"]) == 0
    jobs = find_jobs(find_sweep(tmp_path))
    assert set(jobs) == set(solo_runs)
    assert [name for name in jobs if not are_equal(jobs[name], solo_runs[name])] == []


def test_settings_of_one_job_do_not_reach_the_next(tmp_path: Path) -> None:
    switches = ["trainer.deterministic=true,false", "trainer.precision=64-true,32-true", "strategy=fixed"]
    small = (*(word for word in TINY if "precision" not in word), "trainer.epochs=1", "dataset.train=3")
    chosen = ("trainer.deterministic=true", "trainer.precision=32-true", "strategy=fixed")
    assert launch(["-m", *small, *switches, f"output_dir={tmp_path / 'sweep'}"]) == 0
    assert launch([*small, *chosen, f"output_dir={tmp_path / 'alone'}"]) == 0
    (record,) = (tmp_path / "alone").rglob("run.json")
    jobs = find_jobs(find_sweep(tmp_path / "sweep"))
    assert are_equal(jobs["trainer.deterministic=True,trainer.precision=32-true"], record.parent)


def test_resume_runs_a_failed_and_a_killed_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [
        "-m",
        *(override for override in TINY if "epochs" not in override),
        "strategy=lp_ft",
        "trainer.epochs=2,3,4",
    ]
    assert launch([*arguments, f"output_dir={tmp_path / 'undisturbed'}"]) == 0
    kill_in_epoch(3, [*arguments, f"output_dir={tmp_path / 'disturbed'}"])
    directory = find_sweep(tmp_path / "disturbed")
    assert [job.status for job in read_jobs(directory)] == ["done", "running", "missing"]
    modified_ns = (directory / "0_trainer.epochs=2" / "metrics.json").stat().st_mtime_ns

    with monkeypatch.context() as patch:
        patch.setattr("thaw.training.train.predict_splits", fail_with_four_epochs)
        assert launch([f"resume={directory}"]) == 1
    assert [job.status for job in read_jobs(directory)] == ["done", "done", "failed"]
    log = capsys.readouterr().err
    assert "job 3 failed: trainer.epochs=4\n  ZeroDivisionError: made by the test" in log
    assert f"1 of 3 jobs are not done. To run these alone: thaw resume {directory}" in log
    assert "Traceback" in json.loads((directory / "2_trainer.epochs=4" / "run.json").read_text())["error"]

    assert launch([f"resume={directory}"]) == 0
    assert (directory / "0_trainer.epochs=2" / "metrics.json").stat().st_mtime_ns == modified_ns
    jobs, undisturbed = find_jobs(directory), find_jobs(find_sweep(tmp_path / "undisturbed"))
    assert len(jobs) == 3
    assert [name for name in jobs if not are_equal(jobs[name], undisturbed[name])] == []
    assert read_comparison(directory) == read_comparison(find_sweep(tmp_path / "undisturbed"))


def read_comparison(sweep: Path) -> list[dict[str, str]]:
    """Return the rows of its comparison without times."""
    with (sweep / "comparison.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 3
    time_columns = ("wall_s", "train_s", "cache_s", "images_per_s")
    return [{key: value for key, value in row.items() if key not in time_columns} for row in rows]


def fail_with_four_epochs(trainer: pl.Trainer, *rest: Any) -> Any:
    if trainer.max_epochs == 4:
        raise ZeroDivisionError("made by the test")
    return predict_splits(trainer, *rest)


def test_a_job_that_cannot_start_has_a_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    arguments = [
        "-m",
        *TINY,
        "trainer.epochs=1",
        f"data.cache_dir={file},{tmp_path / 'cache'}",
        f"output_dir={tmp_path}",
    ]
    assert launch(arguments) == 1
    assert [job.status for job in read_jobs(find_sweep(tmp_path))] == ["failed", "done"]
    assert "job 1 failed" in capsys.readouterr().err


def test_a_sweep_records_its_command(tmp_path: Path) -> None:
    arguments = ["-m", *TINY, "trainer.epochs=1", "strategy=fixed", "seed=range(0,2)", f"output_dir={tmp_path}"]
    assert launch(arguments) == 0
    sweep = read_sweep(find_sweep(tmp_path))
    assert sorted(sweep.arguments) == sorted(arguments)
    assert sweep.jobs == 2
