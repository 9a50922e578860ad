"""A sweep over folds: every image is tested once, and each job equals its single run, whatever starts or kills it."""

from __future__ import annotations

import csv
import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.conftest import get_only_run, run_train_script
from tests.sweeps.runs import SMALL, are_equal, find_jobs, find_sweep
from tests.training.killed import kill_in_epoch
from thaw.cli.train import launch
from thaw.sweeps.record import read_jobs

FOLDS, NUM_IMAGES = 3, 4 * (9 + 4 + 5)
STRATEGIES = ("scratch", "fixed", "lp_ft")
NINE_JOBS = ("sweep=folds", f"folds={FOLDS}", f"strategy={','.join(STRATEGIES)}")
pytestmark = pytest.mark.timeout(1000)  # nine trainings, on a machine that other tests use too
has_joblib = find_spec("hydra_plugins") is not None and find_spec("hydra_plugins.hydra_joblib_launcher") is not None


@pytest.fixture(scope="module")
def solo_runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Single runs in this process, by the name of the job of a sweep that must equal them."""
    runs = {}
    for fold in range(FOLDS):
        for strategy in STRATEGIES:
            outputs = tmp_path_factory.mktemp("solo")
            overrides = [f"folds={FOLDS}", f"fold={fold}", f"strategy={strategy}"]
            assert launch([*SMALL, *overrides, f"output_dir={outputs}"]) == 0
            runs[f"fold={fold},strategy={strategy}"] = get_only_run(outputs)
    return runs


def find_differing_jobs(directory: Path, solo_runs: dict[str, Path]) -> list[str]:
    jobs = find_jobs(directory)
    assert set(jobs) == set(solo_runs)
    return [name for name in jobs if not are_equal(jobs[name], solo_runs[name])]


def read_paths(run: Path) -> list[str]:
    with (run / "predictions.csv").open(newline="") as stream:
        return [row["path"] for row in csv.DictReader(stream)]


@pytest.mark.long
def test_nine_jobs_equal_their_single_runs_and_test_every_image_once(
    solo_runs: dict[str, Path], tmp_path: Path
) -> None:
    assert launch(["-m", *SMALL, *NINE_JOBS, f"output_dir={tmp_path}"]) == 0
    directory = find_sweep(tmp_path)
    assert find_differing_jobs(directory, solo_runs) == []
    jobs = find_jobs(directory)
    for strategy in STRATEGIES:
        paths = [path for fold in range(FOLDS) for path in read_paths(jobs[f"fold={fold},strategy={strategy}"])]
        assert len(paths) == len(set(paths)) == NUM_IMAGES


@pytest.mark.long
def test_a_killed_sweep_over_folds_is_resumed_to_the_same_bits(solo_runs: dict[str, Path], tmp_path: Path) -> None:
    kill_in_epoch(2, ["-m", *SMALL, *NINE_JOBS, f"output_dir={tmp_path}"], job="5_fold=1")
    directory = find_sweep(tmp_path)
    assert [job.status for job in read_jobs(directory)] == ["done"] * 5 + ["running"] + ["missing"] * 3
    assert launch([f"resume={directory}"]) == 0
    assert json.loads((directory / "5_fold=1,strategy=lp_ft" / "run.json").read_text())["resumed"]
    assert find_differing_jobs(directory, solo_runs) == []


@pytest.mark.long
@pytest.mark.skipif(not has_joblib, reason='needs pip install "thaw[joblib]"')
def test_parallel_jobs_over_folds_equal_their_single_runs(solo_runs: dict[str, Path], tmp_path: Path) -> None:
    launcher = ("launcher=joblib", "hydra.launcher.n_jobs=2")
    sweep = run_train_script("-m", *SMALL, *launcher, *NINE_JOBS, f"output_dir={tmp_path}")
    assert sweep.returncode == 0, sweep.stderr
    assert find_differing_jobs(find_sweep(tmp_path), solo_runs) == []


@pytest.mark.long
def test_the_folds_and_seeds_of_frozen_features_compute_them_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    plain = [override for override in SMALL if override != "augment=flip"]
    nine_jobs = ["sweep=folds", f"folds={FOLDS}", "seed=0,1,2", "strategy=fixed", "feature_cache=require"]
    assert launch(["-m", *plain, *nine_jobs, f"output_dir={tmp_path}"]) == 0
    jobs = find_jobs(find_sweep(tmp_path)).values()
    seconds = [json.loads((job / "metrics.json").read_text())["timing"]["cache_s"] for job in jobs]
    assert len(seconds) == 9
    assert sum(value > 0 for value in seconds) == 1
    assert len(list((tmp_path / "cache" / "features").glob("[!.]*"))) == 1
