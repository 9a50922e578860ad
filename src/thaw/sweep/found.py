"""What a search has found: told, kept in `search.json`, and drawn."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thaw.analysis.search_plot import Axis, Point, save_search
from thaw.config.search import Dimension
from thaw.sweep.space import distributions
from thaw.training.history_file import read_history
from thaw.training.rank import rank_of
from thaw.training.run import status_in
from thaw.training.trials import Search, metrics_of_run, runs_of, study_before, write_search

FEWEST_EXPLAINED = 10  # trials that are done: fewer do not tell what mattered


def tell(directory: Path, search: Search, space: Sequence[Dimension], fixed: Sequence[str]) -> None:
    """Prints the best trial as a command, and draws all of them into `plots/search.png`."""
    runs = runs_of(directory)
    states = {number: status_in(run) or "failed" for number, run in runs.items()}
    done = {number: metrics_of_run(runs[number]) for number, state in states.items() if state == "done"}
    counts = ", ".join(f"{n} {state}" for state in ("done", "pruned", "failed") if (n := _count(states, state)))
    print(f"\n{len(search.trials)} trials: {counts}")
    if not done:
        print("none was trained to its end, so there is none to recommend")
        return
    best = max(done, key=lambda number: rank_of(done[number]["val"]["accuracy"], done[number]["val"]["loss"]))
    command = _command(fixed, [one.line(search.trials[best].values[one.key]) for one in space])
    _print(best, runs[best], done[best], len(search.trials), command)
    importance = _importance(directory, search, space)
    points = _points(search, runs, states)
    axes = [Axis(one.key, one.kind == "choice", one.log, importance.get(one.key)) for one in space]
    (directory / "plots").mkdir(exist_ok=True)
    save_search(list(points.values()), points[best], axes, directory / "plots" / "search.png")
    found = {"trial": best, "run": runs[best].name, "command": command, "val": done[best]["val"]}
    write_search(directory, search, best={**found, "test": done[best]["test"]}, importance=importance)


def _count(states: dict[int, str], state: str) -> int:
    return sum(1 for one in states.values() if one == state)


def _command(fixed: Sequence[str], chosen: Sequence[str]) -> str:
    """Without what is of the sweep and not of its runs."""
    lines = [line.lstrip("+") for line in (*fixed, *chosen)]
    of_a_run = [line for line in lines if not line.startswith(("sweep=", "launcher=", "hydra.", "hydra/"))]
    return shlex.join(["python", "train.py", *of_a_run])


def _print(number: int, run: Path, metrics: dict[str, Any], trials: int, command: str) -> None:
    test, val = metrics["test"], metrics["val"]
    low, high = test["accuracy_ci95"]
    print(f"best: trial {number + 1}, {run}")
    print(f"  validation accuracy {val['accuracy']:.3f}, the highest of {trials}, which flatters it")
    print(f"  test accuracy       {test['accuracy']:.3f} ({low:.3f} to {high:.3f}), which chose nothing")
    print(f"  {command}")


def _importance(directory: Path, search: Search, space: Sequence[Dimension]) -> dict[str, float]:
    """Of each key, the share of the variance of validation accuracy that it explains by itself: fANOVA (Hutter, Hoos
    and Leyton-Brown 2014) over trials that are done. Empty where these are too few or all alike."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    count = len(search.trials)
    study = study_before(directory, search, count, count, distributions(space))
    values = [trial.value for trial in study.get_trials(states=(TrialState.COMPLETE,))]
    if len(values) < FEWEST_EXPLAINED or len(set(values)) == 1:
        return {}
    return dict(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=search.seed)))


def _points(search: Search, runs: dict[int, Path], states: dict[int, str]) -> dict[int, Point]:
    """Trials that have a validation accuracy, by number, in their order."""
    accuracies = {number: _accuracy(runs[number], state) for number, state in sorted(states.items())}
    return {
        number: Point(number + 1, search.trials[number].values, accuracy, states[number] == "pruned")
        for number, accuracy in accuracies.items()
        if accuracy is not None
    }


def _accuracy(run: Path, state: str) -> float | None:
    """Of the best epoch of a trial that is done, of the last one of a trial that was pruned."""
    if state == "done":
        return float(metrics_of_run(run)["val"]["accuracy"])
    rows = read_history(run / "history.csv")
    return float(rows[-1]["val_accuracy"]) if rows and state == "pruned" else None
