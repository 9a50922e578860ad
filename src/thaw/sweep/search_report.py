"""What a search has found: told, kept in `search.json`, and drawn."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thaw.config.search_space import Dimension
from thaw.runs.history import selection_score
from thaw.runs.run import Run, read_status
from thaw.runs.search import Search, find_trial_runs, study_up_to, write_search
from thaw.sweep.sampling import build_distributions
from thaw.visualization.plots.search import SearchParameter, TrialPoint, save_search_plot

MIN_IMPORTANCE_TRIALS = 10  # trials that are done: fewer do not tell what mattered


def report_search(directory: Path, search: Search, space: Sequence[Dimension], fixed_overrides: Sequence[str]) -> None:
    """Prints the best trial as a command, and draws all of them into `plots/search.png`."""
    runs = find_trial_runs(directory)
    states = {number: read_status(run) or "failed" for number, run in runs.items()}
    done_metrics = {number: Run(runs[number]).metrics for number, state in states.items() if state == "done"}
    counts = ", ".join(f"{n} {state}" for state in ("done", "pruned", "failed") if (n := _count(states, state)))
    print(f"\n{len(search.trials)} trials: {counts}")
    if not done_metrics:
        print("none was trained to its end, so there is none to recommend")
        return
    best_number = max(
        done_metrics,
        key=lambda number: selection_score(
            done_metrics[number]["val"]["accuracy"], done_metrics[number]["val"]["loss"]
        ),
    )
    command = _format_command(
        fixed_overrides,
        [dimension.format_override(search.trials[best_number].values[dimension.key]) for dimension in space],
    )
    _print_best_trial(best_number, runs[best_number], done_metrics[best_number], len(search.trials), command)
    importance = _compute_importance(directory, search, space)
    points = _build_points(search, runs, states)
    axes = [
        SearchParameter(
            dimension.key, dimension.kind == "choice", dimension.is_log_scale, importance.get(dimension.key)
        )
        for dimension in space
    ]
    (directory / "plots").mkdir(exist_ok=True)
    save_search_plot(list(points.values()), points[best_number], axes, directory / "plots" / "search.png")
    best_trial = {
        "trial": best_number,
        "run": runs[best_number].name,
        "command": command,
        "val": done_metrics[best_number]["val"],
    }
    write_search(
        directory, search, best={**best_trial, "test": done_metrics[best_number]["test"]}, importance=importance
    )


def _count(states: dict[int, str], state: str) -> int:
    return sum(1 for trial_state in states.values() if trial_state == state)


def _format_command(fixed_overrides: Sequence[str], trial_overrides: Sequence[str]) -> str:
    """Without what is of the sweep and not of its runs."""
    overrides = [override.lstrip("+") for override in (*fixed_overrides, *trial_overrides)]
    run_overrides = [
        override for override in overrides if not override.startswith(("sweep=", "launcher=", "hydra.", "hydra/"))
    ]
    return shlex.join(["python", "train.py", *run_overrides])


def _print_best_trial(number: int, run: Path, metrics: dict[str, Any], num_trials: int, command: str) -> None:
    test, val = metrics["test"], metrics["val"]
    low, high = test["accuracy_ci95"]
    print(f"best: trial {number + 1}, {run}")
    print(f"  validation accuracy {val['accuracy']:.3f}, the highest of {num_trials}, which flatters it")
    print(f"  test accuracy       {test['accuracy']:.3f} ({low:.3f} to {high:.3f}), which chose nothing")
    print(f"  {command}")


def _compute_importance(directory: Path, search: Search, space: Sequence[Dimension]) -> dict[str, float]:
    """Of each key, the share of the variance of validation accuracy that it explains by itself: fANOVA (Hutter, Hoos
    and Leyton-Brown 2014) over trials that are done. Empty where these are too few or all alike."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    count = len(search.trials)
    study = study_up_to(directory, search, count, count, build_distributions(space))
    values = [trial.value for trial in study.get_trials(states=(TrialState.COMPLETE,))]
    if len(values) < MIN_IMPORTANCE_TRIALS or len(set(values)) == 1:
        return {}
    return dict(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=search.seed)))


def _build_points(search: Search, runs: dict[int, Path], states: dict[int, str]) -> dict[int, TrialPoint]:
    """Trials that have a validation accuracy, by number, in their order."""
    accuracies = {number: _read_accuracy(runs[number], state) for number, state in sorted(states.items())}
    return {
        number: TrialPoint(number + 1, search.trials[number].values, accuracy, states[number] == "pruned")
        for number, accuracy in accuracies.items()
        if accuracy is not None
    }


def _read_accuracy(run: Path, state: str) -> float | None:
    """Of the best epoch of a trial that is done, of the last one of a trial that was pruned."""
    if state == "done":
        return float(Run(run).metrics["val"]["accuracy"])
    rows = Run(run).read_history()
    return float(rows[-1]["val_accuracy"]) if rows and state == "pruned" else None
