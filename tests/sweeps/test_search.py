"""A search: trials are chosen by validation images and pruned; a resumed search equals an uninterrupted one."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.conftest import TINY, get_only_run
from tests.training.killed import kill_in_epoch
from thaw.cli.train import launch
from thaw.config.compose import check_command, parse_command
from thaw.config.errors import UserError
from thaw.config.search_space import Dimension, parse_search_space
from thaw.runs.search import Search, SearchTrial, find_trial_runs, read_search, report_epochs, study_up_to
from thaw.sweeps.record import read_jobs, read_sweep
from thaw.sweeps.search import suggest_values

RATES = "optimizer.learning_rate=tag(log,interval(1e-12,1e-2))"
SMALL = (*TINY, "strategy=fixed", "trainer.epochs=3")
EAGER_PRUNER = ("hydra.sweeper.n_startup_trials=1", "hydra.sweeper.n_warmup_steps=0", "hydra.sweeper.random_trials=2")
COMMAND = ("-m", "sweep=search", *SMALL, *EAGER_PRUNER, RATES, "hydra.sweeper.trials=5", "hydra.sweeper.batch=2")


def find_search(outputs: Path) -> Path:
    (file,) = outputs.glob("*/search.json")
    return file.parent


def read_statuses(directory: Path) -> list[str]:
    return [job.status for job in read_jobs(directory)]


@pytest.fixture(scope="module")
def uninterrupted_search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("search")
    assert launch([*COMMAND, f"output_dir={outputs}"]) == 0
    return find_search(outputs)


def test_bad_trials_are_pruned_before_they_use_test_images(uninterrupted_search: Path) -> None:
    statuses = read_statuses(uninterrupted_search)
    assert sorted(set(statuses)) == ["done", "pruned"]
    assert len(statuses) == read_sweep(uninterrupted_search).jobs == 5
    for number, run in find_trial_runs(uninterrupted_search).items():
        is_done = statuses[number] == "done"
        assert bool(run.metrics) == is_done
        assert (len(run.read_history()) == 3) == is_done


def test_a_trial_is_a_run_of_its_own_recipe(uninterrupted_search: Path) -> None:
    search = read_search(uninterrupted_search)
    assert search is not None
    assert [trial.n_completed for trial in search.trials] == [0, 0, 2, 2, 4]
    assert sorted(search.space) == ["optimizer.learning_rate", "optimizer.weight_decay"]  # strategy was typed
    for number, run in find_trial_runs(uninterrupted_search).items():
        optimizer = run.recipe.to_dict()["optimizer"]
        values = search.trials[number].values
        assert {f"optimizer.{key}": optimizer[key] for key in ("learning_rate", "weight_decay")} == values


def test_the_best_trial_is_a_command_that_trains_it_again(uninterrupted_search: Path, tmp_path: Path) -> None:
    best = json.loads((uninterrupted_search / "search.json").read_text())["best"]
    files = uninterrupted_search.glob("*/metrics.json")
    metrics = {file.parent.name: json.loads(file.read_text()) for file in files}
    assert best["val"]["accuracy"] == max(run_metrics["val"]["accuracy"] for run_metrics in metrics.values())
    assert best["test"] == metrics[best["run"]]["test"]
    assert (uninterrupted_search / "plots" / "search.png").stat().st_size > 5000
    _, script, *arguments = best["command"].split()
    assert script == "train.py"
    assert launch([*arguments, f"output_dir={tmp_path}"]) == 0
    directories = (get_only_run(tmp_path), uninterrupted_search / best["run"])
    predictions, expected = ((directory / "predictions.csv").read_bytes() for directory in directories)
    assert predictions == expected


@pytest.mark.long
def test_a_killed_search_continues_to_the_same_result(uninterrupted_search: Path, tmp_path: Path) -> None:
    last = max(number for number, status in enumerate(read_statuses(uninterrupted_search)) if status == "done")
    assert last > 1, "the kill must come after trials were chosen from results of others"
    kill_in_epoch(2, [*COMMAND, f"output_dir={tmp_path}"], job=f"{last}_")
    directory = find_search(tmp_path)
    assert read_statuses(directory)[last:] == ["running", *["missing"] * (4 - last)]
    file_stats = {
        run.directory: (run.directory / "run.json").stat()
        for number, run in find_trial_runs(directory).items()
        if number < last
    }

    assert launch([f"resume={directory}"]) == 0
    assert all((run / "run.json").stat() == file_stat for run, file_stat in file_stats.items())
    assert read_search(directory) == read_search(uninterrupted_search)
    assert read_statuses(directory) == read_statuses(uninterrupted_search)
    resumed_runs, expected_runs = find_trial_runs(directory), find_trial_runs(uninterrupted_search)
    results = [
        [file.read_bytes() for number in range(5) if (file := runs[number].directory / "predictions.csv").exists()]
        for runs in (resumed_runs, expected_runs)
    ]
    assert results[0] == results[1]


def test_a_pruned_run_is_not_resumed(uninterrupted_search: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pruned = find_trial_runs(uninterrupted_search)[read_statuses(uninterrupted_search).index("pruned")]
    assert launch([f"resume={pruned.directory}"]) == 2
    assert "this run is pruned" in capsys.readouterr().err


def test_a_diverging_trial_is_pruned_and_not_a_failure(tmp_path: Path) -> None:
    arguments = ["-m", "sweep=search", *SMALL, "optimizer.weight_decay=0", "optimizer.learning_rate=1e38,1e-3"]
    assert launch([*arguments, "hydra.sweeper.trials=2", f"output_dir={tmp_path}"]) == 0
    directory = find_search(tmp_path)
    assert sorted(read_statuses(directory)) == ["done", "pruned"]
    diverged = find_trial_runs(directory)[read_statuses(directory).index("pruned")]
    assert "not finite" in diverged.record["pruned"]


def parse_space(*overrides: str) -> list[Dimension]:
    return parse_search_space(OverridesParser.create().parse_overrides(list(overrides)))[0]


def parse_search_expressions(*overrides: str) -> dict[str, str]:
    checked_command = check_command(parse_command(["-m", "sweep=search", *overrides]))
    return {dimension.key: dimension.expression for dimension in parse_space(*checked_command.arguments)}


def test_the_command_line_wins_over_the_preset() -> None:
    preset = parse_search_expressions()
    assert sorted(preset) == ["optimizer.learning_rate", "optimizer.weight_decay", "strategy"]
    typed = parse_search_expressions("strategy=fixed", "optimizer.weight_decay=0,1e-2", "head.dropout=interval(0,0.5)")
    rate = {"optimizer.learning_rate": preset["optimizer.learning_rate"]}
    assert typed == {**rate, "optimizer.weight_decay": "0,1e-2", "head.dropout": "interval(0,0.5)"}


@pytest.mark.parametrize(
    ("overrides", "messages"),
    [
        (["optimizer.learning_rate=1e-3", "optimizer.weight_decay=0", "strategy=fixed"], ["nothing to search"]),
        (["dataset=folder", "dataset.root=.", "dataset.fractions.val=0", "dataset.splits.val=null"], ["leaves none"]),
        (["dataset.val=0", "head.dropout=interval(0,2)", "strategy=fixed"], ["less than 1"]),
        (["dataset.val=0", "strategy=fixed"], ["draws none"]),
        (
            [
                "strategy=fixed",
                "optimizer.learning_rate=interval(1e-2,1e-4)",
                "optimizer.weight_decay=tag(log,interval(0,1e-1))",
                "dataset.split_seed=range(0,2)",
                "hydra.sweeper.pruner=medium",
                "hydra.sweeper.trials=0",
            ],
            ["an empty range", "no logarithm", "which images are", "'hyperband' or 'none'", "than 0"],
        ),
        (
            ["optimizer.learning_rate=1e-3,1e-2", "optimizer.weight_decay=0,1e-2", "strategy=fixed"],
            ["a space of 4 combinations"],
        ),
    ],
)
def test_an_impossible_search_is_an_error_before_it_starts(overrides: list[str], messages: list[str]) -> None:
    with pytest.raises(UserError) as error:
        check_command(parse_command(["-m", "sweep=search", *overrides]))
    assert [message for message in messages if message not in str(error.value)] == []


def test_an_interval_without_a_search_is_an_error() -> None:
    with pytest.raises(UserError, match=r"or sweep=search"):
        check_command(parse_command(["-m", RATES]))


def test_without_optuna_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def hide_optuna(name: str, *args: Any) -> Any:
        return None if name == "optuna" else find_spec(name, *args)

    monkeypatch.setattr(importlib.util, "find_spec", hide_optuna)
    with pytest.raises(UserError, match=r'pip install "thaw\[search\]"'):
        check_command(parse_command(["-m", "sweep=search"]))


def build_search(values: list[dict[str, Any]], pruner: str = "median") -> Search:
    trials = tuple(SearchTrial(trial_values, number) for number, trial_values in enumerate(values))
    return Search(0, random_trials=2, pruner=pruner, n_startup_trials=1, n_warmup_steps=0, space={}, trials=trials)


def write_run(directory: Path, number: int, accuracies: list[float]) -> None:
    run = directory / f"{number}_key=value"
    run.mkdir()
    (run / "config.yaml").touch()
    (run / "run.json").write_text('{"status": "done"}')
    rows = [f"{epoch},1.0,{accuracy}" for epoch, accuracy in enumerate(accuracies, 1)]
    (run / "history.csv").write_text("\n".join(["epoch,val_loss,val_accuracy", *rows]) + "\n")
    val_metrics = {"accuracy": max(accuracies), "loss": 1.0}
    test_metrics = {**val_metrics, "accuracy_ci95": [0.0, 1.0], "count": 10}
    timing = {"wall_s": 1.0, "train_s": 1.0, "images_per_s": 1.0, "cache_s": 0.0}
    (run / "metrics.json").write_text(json.dumps({"val": val_metrics, "test": test_metrics, "timing": timing}))


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruner_stops_only_trials_that_are_worse(tmp_path: Path, pruner: str) -> None:
    for number in range(6):
        write_run(tmp_path, number, [0.5 + 0.01 * number] * 9)
    search = build_search([{}] * 7, pruner)

    def is_stopped(accuracy: float) -> bool:
        trial = study_up_to(tmp_path, search, 6, 6).ask()
        return any(
            report_epochs(trial, [{"epoch": str(epoch), "val_accuracy": str(accuracy)}]) for epoch in range(1, 9)
        )

    assert is_stopped(0.1)
    assert not is_stopped(0.9)


def test_no_two_trials_have_the_same_values(tmp_path: Path) -> None:
    choices = parse_space("seed=range(1,4)", "head=linear,cosine")
    search = build_search([])
    for number in range(6):
        search = search.with_trial(SearchTrial(suggest_values(tmp_path, search, number, choices), number))
        write_run(tmp_path, number, [0.5])
    assert len({tuple(trial.values.items()) for trial in search.trials}) == 6


def test_chosen_values_are_in_the_space(tmp_path: Path) -> None:
    overrides = ["a=int(interval(2,5))", "b=range(0.1,0.5,0.1)", "c=tag(log,interval(1e-7,1e-6))", "d='x y',null"]
    for seed in range(8):
        values = suggest_values(tmp_path, Search(seed, 9, "none", 0, 0, {}), 0, parse_space(*overrides))
        assert values["a"] in (2, 3, 4, 5)
        assert values["b"] in (0.1, 0.2, 0.3, 0.4)
        assert 1e-7 <= values["c"] <= 1e-6
        assert values["d"] in ("'x y'", "null")
