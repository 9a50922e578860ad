"""The result of a search: reported, written into `search.json`, and drawn."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from thaw.config.search_space import Dimension
from thaw.runs.run import Run
from thaw.runs.search import Search, compute_selection_score, find_trial_runs, study_up_to, write_search
from thaw.sweep.sampling import build_distributions
from thaw.sweep.search import SearchRun
from thaw.system.reporter import Reporter
from thaw.visualization.plots.search import SearchParameter, TrialPoint, save_search_plot

MIN_IMPORTANCE_TRIALS = 10  # trials that are done; fewer do not show which key matters


def report_search(search_run: SearchRun, search: Search, reporter: Reporter) -> None:
    """Show the best trial as a command, write it into `search.json`, and draw all trials into `plots/search.png`."""
    directory, space = search_run.directory, search_run.space
    runs = find_trial_runs(directory)
    statuses = {number: run.status if run.exists else "failed" for number, run in runs.items()}
    counts = Counter(statuses.values())
    description = ", ".join(f"{counts[status]} {status}" for status in ("done", "pruned", "failed") if counts[status])
    reporter.write(f"\n{len(search.trials)} trials: {description}")
    done_runs = {number: runs[number] for number, status in statuses.items() if status == "done"}
    if not done_runs:
        reporter.write("none was trained to its end, so there is none to recommend")
        return
    best_number = max(done_runs, key=lambda number: compute_selection_score(done_runs[number]))
    best_run = done_runs[best_number]
    trial_overrides = search_run.format_overrides(search.trials[best_number])
    command = _format_command([*search_run.fixed_overrides, *trial_overrides])
    _report_best_trial(best_number, best_run, len(search.trials), command, reporter)
    importance = _compute_importance(directory, search, space)
    _save_plot(directory, search, space, best_number, importance)
    metrics = best_run.metrics
    best_trial = {"trial": best_number, "run": best_run.name, "command": command}
    write_search(
        directory, search, best={**best_trial, "val": metrics["val"], "test": metrics["test"]}, importance=importance
    )


def _format_command(overrides: Sequence[str]) -> str:
    """Return the command that trains one run, without the overrides that concern the sweep alone."""
    bare_overrides = [override.lstrip("+") for override in overrides]
    run_overrides = [
        override for override in bare_overrides if not override.startswith(("sweep=", "launcher=", "hydra.", "hydra/"))
    ]
    return shlex.join(["python", "train.py", *run_overrides])


def _report_best_trial(number: int, run: Run, num_trials: int, command: str, reporter: Reporter) -> None:
    test, val = run.metrics["test"], run.metrics["val"]
    low, high = test["accuracy_ci95"]
    reporter.write(f"best: trial {number + 1}, {run.directory}")
    reporter.write(f"  validation accuracy {val['accuracy']:.3f}, the highest of {num_trials}, so it is too optimistic")
    reporter.write(f"  test accuracy       {test['accuracy']:.3f} ({low:.3f} to {high:.3f}), which chose nothing")
    reporter.write(f"  {command}")


def _compute_importance(directory: Path, search: Search, space: Sequence[Dimension]) -> dict[str, float]:
    """Return for each key the fraction of the variance of the validation accuracy that it explains by itself: fANOVA
    (Hutter, Hoos and Leyton-Brown 2014) over the trials that are done. Empty if there are too few, or all are equal."""
    from optuna.importance import FanovaImportanceEvaluator, get_param_importances
    from optuna.trial import TrialState

    num_trials = len(search.trials)
    study = study_up_to(directory, search, num_trials, num_trials, build_distributions(space))
    scores = [trial.value for trial in study.get_trials(states=(TrialState.COMPLETE,))]
    if len(scores) < MIN_IMPORTANCE_TRIALS or len(set(scores)) == 1:
        return {}
    return dict(get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=search.seed)))


def _save_plot(
    directory: Path, search: Search, space: Sequence[Dimension], best_number: int, importance: Mapping[str, float]
) -> None:
    accuracies = {number: _read_accuracy(run) for number, run in sorted(find_trial_runs(directory).items())}
    points = {
        number: TrialPoint(number + 1, search.trials[number].values, *accuracy)
        for number, accuracy in accuracies.items()
        if accuracy is not None
    }
    axes = [
        SearchParameter(
            dimension.key, dimension.kind == "choice", dimension.is_log_scale, importance.get(dimension.key)
        )
        for dimension in space
    ]
    (directory / "plots").mkdir(exist_ok=True)
    save_search_plot(list(points.values()), points[best_number], axes, directory / "plots" / "search.png")


def _read_accuracy(run: Run) -> tuple[float, bool] | None:
    """Return the validation accuracy of a trial and whether it was pruned: of the best epoch if it is done, of the last
    one if it was pruned. None if it has none."""
    if not run.exists:
        return None
    if run.status == "done":
        return float(run.metrics["val"]["accuracy"]), False
    rows = run.read_history()
    return (float(rows[-1]["val_accuracy"]), True) if rows and run.status == "pruned" else None
