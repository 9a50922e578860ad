"""The trials of a search: what was chosen stands in `search.json`, what came of it in their run directories, and both
together are a study of Optuna's. Nothing else is kept, so there is nothing that could be lost or out of step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.runs.history import selection_score
from thaw.runs.run import Run, find_runs, read_status
from thaw.system.files import write_json

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.study import Study
    from optuna.trial import Trial as LiveTrial

SEARCH_FILE = "search.json"


@dataclass(frozen=True)
class SearchTrial:
    """`values` by key, as they are typed. The results of the first `known` trials are what it was chosen by and is
    compared with, however many run beside it: so each trial is a function of those."""

    values: dict[str, Any]
    known: int


@dataclass(frozen=True)
class Search:
    """`space` holds the words for what each key's values are chosen from. `pruner`, `spared_trials` and `spared_epochs`
    as conf/hydra/sweeper/search.yaml says; `trials` in the order of their jobs."""

    seed: int
    random_trials: int
    pruner: str
    spared_trials: int
    spared_epochs: int
    space: dict[str, str]
    trials: tuple[SearchTrial, ...] = field(default=())

    def with_trial(self, trial: SearchTrial) -> Search:
        return replace(self, trials=(*self.trials, trial))


def write_search(directory: Path, search: Search, **results: Any) -> None:
    write_json(directory / SEARCH_FILE, {**asdict(search), **results})


def read_search(directory: Path) -> Search | None:
    """The search in the sweep's `directory`; None where there is none."""
    if not (directory / SEARCH_FILE).is_file():
        return None
    content = json.loads((directory / SEARCH_FILE).read_text(encoding="utf-8"))
    trials = tuple(SearchTrial(trial["values"], trial["known"]) for trial in content["trials"])
    settings = {key: content[key] for key in Search.__dataclass_fields__ if key != "trials"}
    return Search(**settings, trials=trials)


def is_trial(run_directory: Path) -> bool:
    """Whether the run in directory `run` is one of a search."""
    return (run_directory.parent / SEARCH_FILE).is_file()


def find_trial_runs(directory: Path) -> dict[int, Path]:
    """Run directories in the sweep's `directory`, by the number of the job."""
    return {int(run.name.partition("_")[0]): run.directory for run in find_runs(directory)}


def create_optuna_trial(run_directory: Path) -> LiveTrial:
    """Optuna's trial for the run in directory `run`, which has reported nothing yet."""
    search, number = read_search(run_directory.parent), int(run_directory.name.partition("_")[0])
    assert search is not None
    return study_up_to(run_directory.parent, search, number, search.trials[number].known).ask()


def study_up_to(
    directory: Path, search: Search, number: int, n_completed: int, space: Mapping[str, BaseDistribution] | None = None
) -> Study:
    """A study in memory of the trials before `number`, of which the first `known` have their results and the others are
    under way. They are told anew, epoch by epoch: pruners keep accounts of their own. With `space`, their values too.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.RandomSampler(seed=0)  # of no effect: all values are given
    study = optuna.create_study(study_name="thaw", direction="maximize", sampler=sampler, pruner=_build_pruner(search))
    runs = find_trial_runs(directory)
    for index, trial in enumerate(search.trials[:number]):
        if space:
            study.enqueue_trial(trial.values)
        optuna_trial = study.ask(dict(space or {}))
        if index < n_completed:
            _tell_result(study, optuna_trial, runs.get(index))
    return study


def _build_pruner(search: Search) -> BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    n_warmup_steps = search.spared_epochs + 1
    if search.pruner == "median":
        return MedianPruner(n_startup_trials=search.spared_trials, n_warmup_steps=n_warmup_steps)
    return HyperbandPruner(min_resource=n_warmup_steps) if search.pruner == "hyperband" else NopPruner()


def _tell_result(study: Study, optuna_trial: LiveTrial, run_directory: Path | None) -> None:
    from optuna.trial import TrialState

    status = read_status(run_directory) if run_directory else None
    if run_directory is None or status not in ("done", "pruned"):
        study.tell(optuna_trial, state=TrialState.FAIL)
        return
    report_epochs(optuna_trial, Run(run_directory).read_history())
    if status == "pruned":
        study.tell(optuna_trial, state=TrialState.PRUNED)
    else:
        val_metrics = Run(run_directory).metrics["val"]
        study.tell(optuna_trial, selection_score(val_metrics["accuracy"], val_metrics["loss"]))


def report_epochs(optuna_trial: LiveTrial, rows: Sequence[Mapping[str, str]]) -> bool:
    """Tells the epochs in `rows` of a `history.csv`; whether the last of them is one to stop after."""
    should_prune = False
    for row in rows:
        optuna_trial.report(float(row["val_accuracy"]), int(row["epoch"]))
        should_prune = optuna_trial.should_prune()
    return should_prune
