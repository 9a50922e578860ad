"""Runs, sweeps and searches of version 0.1 still work. `version_0_1/` is a run that version 0.1 has trained."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from tests.conftest import run_thaw
from thaw.comparison.comparison import build_comparison
from thaw.config.schema import Recipe
from thaw.data.factory import load_samples
from thaw.inference.load import load
from thaw.runs.run import Run, open_run
from thaw.runs.search import SearchTrial, read_search
from thaw.sweeps.record import read_sweep, upgrade_job_directories, upgrade_override

RUN = Path(__file__).parent / "version_0_1"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a copy of the run that commands may write into."""
    return open_run(shutil.copytree(RUN, tmp_path / "old"))


def write_upgraded_copy(directory: Path) -> Path:
    """Write the same run as the present version would write it."""
    shutil.copytree(RUN, directory)
    recipe: Recipe = open_run(RUN).recipe
    (directory / "config.yaml").write_text(yaml.safe_dump(recipe.to_dict()))
    return directory


def test_its_recipe_has_the_present_keys(run: Run) -> None:
    assert run.recipe.trainer.num_workers == 0
    assert run.recipe.feature_cache.mode == "off"
    assert run.recipe.strategy.init == "random"
    assert run.recipe.scheduler.final_div_factor == 400  # 10000 from the highest rate, 25 of them before the first step


def test_it_opens_with_metrics_history_predictions_and_plan(run: Run) -> None:
    assert (run.status, run.is_finished, run.needs_evaluation) == ("done", True, False)
    assert run.metrics["test"]["accuracy"] == 0.25
    assert list(run.history["epoch"]) == [1, 2]
    assert len(run.predictions) == 20
    assert set(run.plan["phase"]) == {"all"}
    assert "test accuracy 0.250" in repr(run)


def test_it_is_the_same_configuration_as_a_new_run(run: Run, tmp_path: Path) -> None:
    new_run = write_upgraded_copy(tmp_path / "new")
    comparison = build_comparison([run, new_run])
    assert comparison.results.keys == ()
    assert len(comparison.configurations) == 1
    assert len(comparison.runs) == 1  # the same seed, so that one of them is left out


def test_evaluate_repeats_its_numbers(
    run: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another processor may round otherwise, in the ninth digit."""
    assert run_thaw(monkeypatch, "evaluate", str(run.directory)) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "metrics.json:" in line]
    largest_difference = re.search(r"differ, by (\S+) at most", line)
    assert "the same numbers" in line or (largest_difference and float(largest_difference[1]) < 1e-7)


def test_it_decodes_images_at_their_full_size_as_it_did(run: Run) -> None:
    assert load(run.directory).preprocessing.decoding == "full"


def test_predict_repeats_its_predictions(run: Run) -> None:
    root = load_samples(run.recipe).root
    rows = run.read_prediction_rows()
    predictions = load(run.directory).predict([root / row["path"] for row in rows], top=1)
    assert [prediction.label for prediction in predictions] == [row["prediction"] for row in rows]


def test_report_writes_its_page(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_thaw(monkeypatch, "report", str(run.directory)) == 0
    assert "test accuracy" in run.report_path.read_text(encoding="utf-8")


def test_compare_writes_its_page(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_thaw(monkeypatch, "compare", str(run.directory), f"out={tmp_path / 'comparison'}") == 0
    with (tmp_path / "comparison" / "comparison.csv").open(newline="") as stream:
        (row,) = csv.DictReader(stream)
    assert float(row["test_accuracy"]) == 0.25


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("trainer.workers=0,1", "trainer.num_workers=0,1"),
        ("+cache.gib=1", "+feature_cache.gib=1"),
        ("cache=off", "feature_cache=off"),
        ("strategy.start=source,random", "strategy.init=pretrained,random"),
        ("strategy.phases.all.share=0.5", "strategy.phases.all.fraction=0.5"),
        ("hydra.sweeper.spared_trials=1", "hydra.sweeper.n_startup_trials=1"),
        ("strategy=fixed", "strategy=fixed"),
        ("-m", "-m"),
    ],
)
def test_overrides_of_a_sweep_get_the_present_keys(line: str, expected: str) -> None:
    assert upgrade_override(line) == expected


def test_a_sweep_finds_its_jobs_by_the_present_keys(tmp_path: Path) -> None:
    for name in ("0_trainer.workers=0,seed=0", "1_strategy=fixed"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "run.json").write_text('{"status": "done"}')
    (tmp_path / "sweep.json").write_text(json.dumps({"arguments": ["-m", "trainer.workers=0,1"], "jobs": 2}))
    assert read_sweep(tmp_path).arguments == ("-m", "trainer.num_workers=0,1", "dataset.split_seed=${seed}")
    upgrade_job_directories(tmp_path)
    names = sorted(path.name for path in tmp_path.iterdir() if path.is_dir())
    assert names == ["0_trainer.num_workers=0,seed=0", "1_strategy=fixed"]


def test_a_search_is_read_with_its_former_names(tmp_path: Path) -> None:
    content = {
        **{"seed": 3, "random_trials": 10, "pruner": "median", "spared_trials": 5, "spared_epochs": 1},
        "space": {"trainer.accumulate": "1,2"},
        "trials": [{"values": {"trainer.accumulate": "2"}, "known": 0}],
    }
    (tmp_path / "search.json").write_text(json.dumps(content))
    search = read_search(tmp_path)
    assert search is not None
    assert (search.n_startup_trials, search.n_warmup_steps) == (5, 1)
    assert search.space == {"trainer.accumulate_grad_batches": "1,2"}
    assert search.trials == (SearchTrial({"trainer.accumulate_grad_batches": "2"}, 0),)
