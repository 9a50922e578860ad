"""Runs that were killed while their directory was created, and begin or continue."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.sweeps.runs import are_equal, find_jobs, find_sweep
from tests.training.killed import kill_before_write
from thaw.cli.main import main
from thaw.cli.train import launch

RECIPE = (*TINY, "backbone=timm", "backbone.name=test_efficientnet", "strategy=scratch", "head.dropout=0.3")


def train_in(directory: Path) -> int:
    return launch([*RECIPE, f"hydra.run.dir={directory}"])


@pytest.mark.long
@pytest.mark.parametrize("name", ["config.yaml", "run.json"])
def test_a_run_killed_at_its_start_is_started_again(name: str, tmp_path: Path) -> None:
    assert train_in(tmp_path / "whole") == 0
    kill_before_write(name, [*RECIPE, f"hydra.run.dir={tmp_path / 'killed'}"])
    assert not (tmp_path / "killed" / "run.json").exists()
    assert train_in(tmp_path / "killed") == 0
    assert are_equal(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.long
def test_a_run_killed_between_recipe_and_record_is_resumed(tmp_path: Path) -> None:
    assert train_in(tmp_path / "whole") == 0
    kill_before_write("run.json", [*RECIPE, f"hydra.run.dir={tmp_path / 'killed'}"])
    assert main(["resume", str(tmp_path / "killed")]) == 0
    assert are_equal(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.long
def test_a_sweep_completes_after_a_job_was_killed_at_its_start(tmp_path: Path) -> None:
    arguments = [*RECIPE, "-m", "seed=0,1"]
    assert launch([*arguments, f"output_dir={tmp_path / 'whole'}"]) == 0
    kill_before_write("run.json", [*arguments, f"output_dir={tmp_path / 'killed'}"], job="1_")
    sweep = find_sweep(tmp_path / "killed")
    assert main(["resume", str(sweep)]) == 0
    jobs, expected_jobs = find_jobs(sweep), find_jobs(find_sweep(tmp_path / "whole"))
    assert len(jobs) == 2
    assert all(are_equal(jobs[name], run) for name, run in expected_jobs.items())


@pytest.mark.long
def test_a_directory_with_a_recipe_alone_is_a_run_that_never_began(tmp_path: Path) -> None:
    assert train_in(tmp_path / "run") == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())["test"]
    (tmp_path / "killed").mkdir()
    (tmp_path / "run" / "config.yaml").rename(tmp_path / "killed" / "config.yaml")
    assert main(["resume", str(tmp_path / "killed")]) == 0
    assert json.loads((tmp_path / "killed" / "metrics.json").read_text())["test"] == metrics
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["status"] == "done"
