"""A run directory in Python: its properties, how it is shown, and what it says if files are missing."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from tests.comparison.records import build_correct, write_run
from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.runs.environment import lock_run
from thaw.runs.lifecycle import TrialPruned, check_resumable, create_run, record_failure, record_status
from thaw.runs.run import Run, find_runs, is_run, open_run, read_status

PLAN = [
    {
        "name": "all",
        "start": 0,
        "end": 4,
        "parts": [{"name": "stem", "trainable": True}, {"name": "head", "trainable": True}],
    }
]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run that is done, with 18 of 20 test images correct."""
    return open_run(write_run(tmp_path / "run", "strategy=fixed", record={"plan": PLAN}))


@pytest.fixture
def unfinished_run(tmp_path: Path) -> Run:
    """Return a run that has just been started."""
    return create_run(compose_recipe(["strategy=fixed"]), tmp_path / "unfinished", "python train.py strategy=fixed")


def test_a_finished_run_has_its_recipe_record_and_metrics(run: Run) -> None:
    assert (run.name, run.status, run.exists, run.is_finished, run.is_probe) == ("run", "done", True, True, False)
    assert run.recipe.strategy.name == "fixed"
    assert run.recipe.to_dict() == run.read_recipe_values()
    assert run.record["data"]["classes"] == 2
    assert run.metrics["test"]["accuracy"] == 0.9
    run.check_results()
    assert not run.needs_evaluation


def test_its_files_lie_in_its_directory(run: Run) -> None:
    paths = [run.best_checkpoint, run.last_checkpoint, run.plots_directory, run.tensorboard_directory]
    paths += [run.report_path, run.probe_trials_path]
    assert all(path.is_relative_to(run.directory) for path in paths)
    assert Path(run) == run.directory
    assert str(run.report) == str(run.report_path)


def test_its_tables_are_data_frames(run: Run) -> None:
    pandas = pytest.importorskip("pandas")
    assert all(isinstance(table, pandas.DataFrame) for table in (run.history, run.predictions, run.plan))
    assert run.history["val_loss"].tolist() == [0.9, 0.5]
    assert run.predictions["probability"].mean() == pytest.approx(0.9)
    assert (run.predictions["label"] == run.predictions["prediction"]).sum() == 18
    assert run.plan[["phase", "start_epoch", "end_epoch", "name"]].to_numpy().tolist() == [
        ["all", 1, 4, "stem"],
        ["all", 1, 4, "head"],
    ]


def test_its_tables_are_lists_of_dicts_without_pandas(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert run.history == [
        {"epoch": 1, "val_loss": 0.9, "val_accuracy": pytest.approx(0.1)},
        {"epoch": 2, "val_loss": 0.5, "val_accuracy": 0.5},
    ]
    assert run.predictions[0] == {
        "path": "test/00.png",
        "label": "ants",
        "prediction": "bees",
        "probability": 0.9,
    }
    assert [row["name"] for row in run.plan] == ["stem", "head"]


def test_its_predictions_are_arrays_of_class_indices(run: Run) -> None:
    predictions = run.read_test_predictions(("ants", "bees"))
    assert predictions.correct.tolist() == build_correct(20, [0, 1]).tolist()
    assert predictions.compute_confusion_matrix().tolist() == [[9, 1], [1, 9]]


def test_it_is_shown_with_its_accuracy(run: Run) -> None:
    assert repr(run) == f"Run({str(run.directory)!r}, done, test accuracy 0.900)"
    html = run._repr_html_()
    assert "<b>run</b> (done)" in html
    assert "<td>accuracy</td><td>0.900 (0.699 to 0.972)</td><td>0.900</td>" in html
    assert "<img" not in html


def test_a_notebook_shows_its_curves_and_its_page(run: Run) -> None:
    run.plots_directory.mkdir()
    (run.plots_directory / "curves.png").write_bytes(b"image")
    assert '<img src="data:image/png;base64,aW1hZ2U="' in run._repr_html_()
    run.write_report('<p class="x">page</p>')
    assert '<iframe srcdoc="&lt;p class=&quot;x&quot;&gt;page' in run.report._repr_html_()
    assert repr(run.report) == f"HtmlReport({str(run.report_path)!r})"


def test_an_unfinished_run_has_no_numbers_yet(unfinished_run: Run) -> None:
    run = open_run(unfinished_run.directory)
    assert (run.status, run.is_finished) == ("running", False)
    assert run.record["command"] == "python train.py strategy=fixed"
    assert run.metrics == {}
    assert run.read_history() == []
    assert len(run.history) == 0
    assert len(run.plan) == 0
    assert repr(run) == f"Run({str(run.directory)!r}, running)"
    assert "<table" not in run._repr_html_()
    with pytest.raises(UserError, match="no such file"):
        _ = run.predictions


def test_a_run_without_a_directory_is_not_started(tmp_path: Path) -> None:
    run = Run(tmp_path / "none")
    assert not run.exists
    assert repr(run) == f"Run({str(tmp_path / 'none')!r}, not started)"
    assert run.read_recipe_values() == {}
    assert read_status(tmp_path / "none") is None
    with pytest.raises(UserError, match=r"No such run\.(.|\n)*no run.json and no config.yaml in it"):
        open_run(tmp_path / "none")


def test_a_misspelled_run_is_an_error_with_the_nearest_name(run: Run) -> None:
    with pytest.raises(UserError, match=f"fix:   {run.directory}"):
        open_run(run.directory.with_name("runn"))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (
            "run.json",
            "{",
            "run.json cannot be used(.|\n)*got: +it is cut off(.|\n)*fix: +delete the file; then",
        ),
        (
            "config.yaml",
            "{a: [",
            "config.yaml cannot be used(.|\n)*while parsing a flow(.|\n)*fix: +restore it",
        ),
        ("config.yaml", "seed: 1", "is missing"),
    ],
)
def test_an_unreadable_file_is_an_error(run: Run, name: str, content: str, message: str) -> None:
    (run.directory / name).write_text(content)
    with pytest.raises(UserError, match=message):
        _ = (Run(run.directory).record, Run(run.directory).recipe)


def test_a_directory_with_a_run_is_not_used_again(run: Run) -> None:
    with pytest.raises(UserError, match=r"is taken(.|\n)*resume="):
        create_run(run.recipe, run.directory)


def test_only_an_unfinished_run_is_resumable(run: Run, unfinished_run: Run, tmp_path: Path) -> None:
    check_resumable(unfinished_run.directory)
    with pytest.raises(UserError, match=r"nothing to resume(.|\n)*this run is done"):
        check_resumable(run.directory)
    with pytest.raises(UserError, match="no run to resume"):
        check_resumable(tmp_path / "none")


def test_how_a_run_ends_is_recorded(unfinished_run: Run) -> None:
    with record_status(unfinished_run):
        raise TrialPruned("epoch 3 was worse than the median")
    assert unfinished_run.record["pruned"] == "epoch 3 was worse than the median"
    with pytest.raises(KeyboardInterrupt), record_status(unfinished_run):
        raise KeyboardInterrupt
    assert open_run(unfinished_run.directory).status == "interrupted"
    with pytest.raises(ZeroDivisionError), record_status(unfinished_run):
        raise ZeroDivisionError
    assert "ZeroDivisionError" in open_run(unfinished_run.directory).record["error"]
    with record_status(unfinished_run):
        pass
    assert open_run(unfinished_run.directory).is_finished


def test_a_failure_before_the_start_is_recorded_and_a_later_one_is_not(unfinished_run: Run, tmp_path: Path) -> None:
    (tmp_path / "failed").mkdir()
    record_failure(tmp_path / "failed", "no GPU.")
    assert is_run(tmp_path / "failed")
    assert read_status(tmp_path / "failed") is None
    record_failure(unfinished_run.directory, "no GPU.")
    assert read_status(unfinished_run.directory) == "running"
    assert [run.name for run in find_runs(tmp_path)] == ["failed", "unfinished"]
    assert [run.name for run in find_runs(tmp_path / "failed")] == ["failed"]


def test_a_locked_run_cannot_be_locked_again(tmp_path: Path) -> None:
    with lock_run(tmp_path), pytest.raises(UserError, match="another process"), lock_run(tmp_path):
        pass
    with lock_run(tmp_path):
        pass


def test_only_the_first_process_writes(unfinished_run: Run) -> None:
    run = Run(unfinished_run.directory, rank=1)
    run.update(note="no")
    run.write_metrics({"test": {}})
    run.write_history([{"epoch": 1}])
    run.write_report("page")
    assert "note" not in open_run(run.directory).record
    assert (run.metrics, run.read_history(), run.report_path.exists()) == ({}, [], False)


def test_the_most_confident_images_come_first(run: Run) -> None:
    predictions = run.read_test_predictions(("ants", "bees"))
    mask = np.zeros(20, bool)
    mask[[3, 5, 7]] = True
    predictions.probabilities[[3, 5, 7]] = (0.2, 0.8, 0.5)
    assert predictions.most_confident(mask, 2) == [5, 7]
    assert predictions.least_confident(mask, 2) == [3, 7]
