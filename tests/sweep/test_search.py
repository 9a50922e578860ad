"""A search: chosen by validation images, pruned, taken up again as if nothing had happened."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser

from tests.conftest import TINY, only_run
from tests.training.killed import killed_in_epoch
from thaw.cli.train import launch
from thaw.config.compose import check_command, parse_command
from thaw.config.errors import UserError
from thaw.config.search_space import Dimension, parse_search_space
from thaw.runs.run import Run
from thaw.runs.search import Search, SearchTrial, find_runs, read_search, report_epochs, study_up_to
from thaw.sweep.record import read_jobs, read_sweep
from thaw.sweep.sampling import suggest_values

RATES = "optimizer.learning_rate=tag(log,interval(1e-12,1e-2))"
SMALL = (*TINY, "strategy=fixed", "trainer.epochs=3")
HASTY = ("hydra.sweeper.spared_trials=1", "hydra.sweeper.spared_epochs=0", "hydra.sweeper.random_trials=2")
WORDS = ("-m", "sweep=search", *SMALL, *HASTY, RATES, "hydra.sweeper.trials=5", "hydra.sweeper.batch=2")


def search_in(outputs: Path) -> Path:
    (file,) = outputs.glob("*/search.json")
    return file.parent


def statuses(directory: Path) -> list[str]:
    return [job.status for job in read_jobs(directory)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    outputs = tmp_path_factory.mktemp("search")
    assert launch([*WORDS, f"output_dir={outputs}"]) == 0
    return search_in(outputs)


def test_bad_trials_are_pruned_and_never_see_test_images(undisturbed: Path) -> None:
    found = statuses(undisturbed)
    assert sorted(set(found)) == ["done", "pruned"]
    assert len(found) == read_sweep(undisturbed).jobs == 5
    for number, run in find_runs(undisturbed).items():
        is_done = found[number] == "done"
        assert (run / "metrics.json").exists() == is_done
        assert (len(Run(run).read_history()) == 3) == is_done


def test_a_trial_is_a_run_of_its_own_recipe(undisturbed: Path) -> None:
    search = read_search(undisturbed)
    assert search is not None
    assert [trial.known for trial in search.trials] == [0, 0, 2, 2, 4]
    assert sorted(search.space) == ["optimizer.learning_rate", "optimizer.weight_decay"]  # strategy was typed
    for number, run in find_runs(undisturbed).items():
        optimizer = yaml.safe_load((run / "config.yaml").read_text())["optimizer"]
        values = search.trials[number].values
        assert {f"optimizer.{key}": optimizer[key] for key in ("learning_rate", "weight_decay")} == values


def test_the_best_is_a_command_that_trains_it_again(undisturbed: Path, tmp_path: Path) -> None:
    best = json.loads((undisturbed / "search.json").read_text())["best"]
    files = undisturbed.glob("*/metrics.json")
    metrics = {file.parent.name: json.loads(file.read_text()) for file in files}
    assert best["val"]["accuracy"] == max(one["val"]["accuracy"] for one in metrics.values())
    assert best["test"] == metrics[best["run"]]["test"]
    assert (undisturbed / "plots" / "search.png").stat().st_size > 5000
    _, script, *arguments = best["command"].split()
    assert script == "train.py"
    assert launch([*arguments, f"output_dir={tmp_path}"]) == 0
    again, before = (run / "predictions.csv" for run in (only_run(tmp_path), undisturbed / best["run"]))
    assert again.read_bytes() == before.read_bytes()


@pytest.mark.long
def test_a_killed_search_goes_on_as_if_undisturbed(undisturbed: Path, tmp_path: Path) -> None:
    last = max(number for number, status in enumerate(statuses(undisturbed)) if status == "done")
    assert last > 1, "the kill is to come when trials have been chosen by others"
    killed_in_epoch(2, [*WORDS, f"output_dir={tmp_path}"], job=f"{last}_")
    directory = search_in(tmp_path)
    assert statuses(directory)[last:] == ["running", *["missing"] * (4 - last)]
    untouched = {run: (run / "run.json").stat() for number, run in find_runs(directory).items() if number < last}

    assert launch([f"resume={directory}"]) == 0
    assert all((run / "run.json").stat() == before for run, before in untouched.items())
    assert read_search(directory) == read_search(undisturbed)
    assert statuses(directory) == statuses(undisturbed)
    again, first = find_runs(directory), find_runs(undisturbed)
    results = [
        [file.read_bytes() for number in range(5) if (file := runs[number] / "predictions.csv").exists()]
        for runs in (again, first)
    ]
    assert results[0] == results[1]


def test_what_was_pruned_is_not_resumed(undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pruned = find_runs(undisturbed)[statuses(undisturbed).index("pruned")]
    assert launch([f"resume={pruned}"]) == 2
    assert "this run is pruned" in capsys.readouterr().err


def test_a_trial_that_diverges_is_pruned_and_no_failure(tmp_path: Path) -> None:
    words = ["-m", "sweep=search", *SMALL, "optimizer.weight_decay=0", "optimizer.learning_rate=1e38,1e-3"]
    assert launch([*words, "hydra.sweeper.trials=2", f"output_dir={tmp_path}"]) == 0
    directory = search_in(tmp_path)
    assert sorted(statuses(directory)) == ["done", "pruned"]
    diverged = find_runs(directory)[statuses(directory).index("pruned")]
    assert "not finite" in json.loads((diverged / "run.json").read_text())["pruned"]


def space(*words: str) -> list[Dimension]:
    return parse_search_space(OverridesParser.create().parse_overrides(list(words)))[0]


def searched(*words: str) -> dict[str, str]:
    made = check_command(parse_command(["-m", "sweep=search", *words]))
    return {one.key: one.expression for one in space(*made.arguments)}


def test_the_command_line_wins_over_the_preset() -> None:
    preset = searched()
    assert sorted(preset) == ["optimizer.learning_rate", "optimizer.weight_decay", "strategy"]
    typed = searched("strategy=fixed", "optimizer.weight_decay=0,1e-2", "head.dropout=interval(0,0.5)")
    rate = {"optimizer.learning_rate": preset["optimizer.learning_rate"]}
    assert typed == {**rate, "optimizer.weight_decay": "0,1e-2", "head.dropout": "interval(0,0.5)"}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["optimizer.learning_rate=1e-3", "optimizer.weight_decay=0", "strategy=fixed"], ["nothing to search"]),
        (["dataset=folder", "dataset.root=.", "dataset.fractions.val=0", "dataset.splits.val=null"], ["cuts none"]),
        (["dataset.val=0", "head.dropout=interval(0,2)", "strategy=fixed"], ["less than 1"]),
        (
            [
                "dataset.val=0",
                "strategy=fixed",
                "optimizer.learning_rate=interval(1e-2,1e-4)",
                "optimizer.weight_decay=tag(log,interval(0,1e-1))",
                "seed=range(0,2)",
                "hydra.sweeper.pruner=medium",
                "hydra.sweeper.trials=0",
            ],
            ["nothing in it", "no logarithm", "which images are in", "draws none", "'hyperband' or 'none'", "than 0"],
        ),
        (
            ["optimizer.learning_rate=1e-3,1e-2", "optimizer.weight_decay=0,1e-2", "strategy=fixed"],
            ["a space of 4 combinations"],
        ),
    ],
)
def test_a_search_that_cannot_be_is_told_before_it_starts(words: list[str], told: list[str]) -> None:
    with pytest.raises(UserError) as fault:
        check_command(parse_command(["-m", "sweep=search", *words]))
    assert [one for one in told if one not in str(fault.value)] == []


def test_an_interval_without_a_search_is_told() -> None:
    with pytest.raises(UserError, match=r"or sweep=search"):
        check_command(parse_command(["-m", RATES]))


def test_without_optuna_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec

    def hidden(name: str, *rest: Any) -> Any:
        return None if name == "optuna" else found(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", hidden)
    with pytest.raises(UserError, match=r'pip install "thaw\[search\]"'):
        check_command(parse_command(["-m", "sweep=search"]))


def search_of(values: list[dict[str, Any]], pruner: str = "median") -> Search:
    trials = tuple(SearchTrial(one, number) for number, one in enumerate(values))
    return Search(0, random_trials=2, pruner=pruner, spared_trials=1, spared_epochs=0, space={}, trials=trials)


def write_run(directory: Path, number: int, accuracies: list[float]) -> None:
    run = directory / f"{number}_made=up"
    run.mkdir()
    (run / "config.yaml").touch()
    (run / "run.json").write_text('{"status": "done"}')
    rows = [f"{epoch},{accuracy}" for epoch, accuracy in enumerate(accuracies, 1)]
    (run / "history.csv").write_text("\n".join(["epoch,val_accuracy", *rows]) + "\n")
    (run / "metrics.json").write_text(json.dumps({"val": {"accuracy": max(accuracies), "loss": 1.0}}))


@pytest.mark.parametrize("pruner", ["median", "hyperband"])
def test_a_pruner_stops_what_is_worse_and_nothing_else(tmp_path: Path, pruner: str) -> None:
    for number in range(6):
        write_run(tmp_path, number, [0.5 + 0.01 * number] * 9)
    search = search_of([{}] * 7, pruner)

    def is_stopped(accuracy: float) -> bool:
        live = study_up_to(tmp_path, search, 6, 6).ask()
        return any(report_epochs(live, [{"epoch": str(epoch), "val_accuracy": str(accuracy)}]) for epoch in range(1, 9))

    assert is_stopped(0.1)
    assert not is_stopped(0.9)


def test_no_values_are_tried_twice(tmp_path: Path) -> None:
    choices = space("seed=range(1,4)", "head=linear,cosine")
    search = search_of([])
    for number in range(6):
        search = search.with_trial(SearchTrial(suggest_values(tmp_path, search, number, choices), number))
        write_run(tmp_path, number, [0.5])
    assert len({tuple(trial.values.items()) for trial in search.trials}) == 6


def test_values_lie_in_their_space(tmp_path: Path) -> None:
    words = ["a=int(interval(2,5))", "b=range(0.1,0.5,0.1)", "c=tag(log,interval(1e-7,1e-6))", "d='x y',null"]
    for seed in range(8):
        values = suggest_values(tmp_path, Search(seed, 9, "none", 0, 0, {}), 0, space(*words))
        assert values["a"] in (2, 3, 4, 5)
        assert values["b"] in (0.1, 0.2, 0.3, 0.4)
        assert 1e-7 <= values["c"] <= 1e-6
        assert values["d"] in ("'x y'", "null")
