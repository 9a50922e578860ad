"""The trials of a search. `search.json` holds what was chosen, the run directories hold the results, and both together
make an Optuna study. Nothing else is stored, so nothing can be lost or contradict the runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.config.errors import UserError
from thaw.config.renamed_keys import find_new_key
from thaw.runs import SEARCH_FILE
from thaw.runs.history import selection_score
from thaw.runs.reader import read_json
from thaw.runs.run import Run, find_runs
from thaw.runs.schema import SearchEntries
from thaw.system.files import write_json

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.study import Study
    from optuna.trial import Trial as OptunaTrial

OLD_NAMES = {"known": "n_completed", "spared_trials": "n_startup_trials", "spared_epochs": "n_warmup_steps"}  # 0.1's


@dataclass(frozen=True)
class SearchTrial:
    """The values of a trial by key, as they are typed. They were chosen from, and are compared with, the results of the
    first `n_completed` trials, however many run at the same time: each trial is a function of those."""

    values: dict[str, Any]
    n_completed: int


@dataclass(frozen=True)
class Search:
    """A search. `space` holds by key the expression that values are chosen from; `trials` are in the order of their
    jobs. conf/hydra/sweeper/search.yaml explains the other fields."""

    seed: int
    random_trials: int
    pruner: str
    n_startup_trials: int
    n_warmup_steps: int
    space: dict[str, str]
    trials: tuple[SearchTrial, ...] = field(default=())

    def with_trial(self, trial: SearchTrial) -> Search:
        """Return the search with one more trial."""
        return replace(self, trials=(*self.trials, trial))


def write_search(directory: Path, search: Search, **results: Any) -> None:
    """Write `search.json` into the directory of a sweep, with the entries `results` added."""
    write_json(directory / SEARCH_FILE, {**asdict(search), **results})


def read_search(directory: Path) -> Search | None:
    """Return the search in the directory of a sweep, or None if it has none. Names of version 0.1 are replaced.

    Raises:
        UserError: if `search.json` is damaged.
    """
    file = directory / SEARCH_FILE
    if not os.path.lexists(file):
        return None
    content = _replace_old_names(read_json(file, SearchEntries))
    trials = [_replace_old_names(trial) for trial in content["trials"]]
    settings = {key: content[key] for key in Search.__dataclass_fields__}
    settings["space"] = _upgrade_keys(content["space"])
    settings["trials"] = tuple(SearchTrial(_upgrade_keys(trial["values"]), trial["n_completed"]) for trial in trials)
    return Search(**settings)


def _replace_old_names(content: Mapping[str, Any]) -> dict[str, Any]:
    return {OLD_NAMES.get(key, key): value for key, value in content.items()}


def _upgrade_keys(values: Mapping[str, Any]) -> dict[str, Any]:
    return {find_new_key(key) or key: value for key, value in values.items()}


def is_trial(run_directory: Path) -> bool:
    """Return whether the run in `run_directory` belongs to a search."""
    return (run_directory.parent / SEARCH_FILE).is_file()


def find_trial_runs(directory: Path) -> dict[int, Run]:
    """Return the runs below the directory of a sweep by the number of their job, without those whose record is
    damaged: a trial without a run counts as failed."""
    runs_by_number = {}
    for run in find_runs(directory):
        with suppress(UserError, ValueError):
            number, _ = int(run.name.partition("_")[0]), run.status
            runs_by_number[number] = run
    return runs_by_number


def create_optuna_trial(run_directory: Path) -> OptunaTrial:
    """Return Optuna's trial for the run in `run_directory`, without reported epochs."""
    search, number = read_search(run_directory.parent), int(run_directory.name.partition("_")[0])
    assert search is not None
    return study_up_to(run_directory.parent, search, number, search.trials[number].n_completed).ask()


def study_up_to(
    directory: Path, search: Search, number: int, n_completed: int, space: Mapping[str, BaseDistribution] | None = None
) -> Study:
    """Return an Optuna study in memory of the trials before `number`.

    The first `n_completed` of them have their results, the others count as running. All epochs are reported again,
    because pruners keep a state of their own. With `space` the trials have their values too.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.RandomSampler(seed=0)  # has no effect: all values are given
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

    first_pruned_epoch = search.n_warmup_steps + 1  # Optuna counts steps from 0, epochs count from 1
    if search.pruner == "median":
        return MedianPruner(n_startup_trials=search.n_startup_trials, n_warmup_steps=first_pruned_epoch)
    return HyperbandPruner(min_resource=first_pruned_epoch) if search.pruner == "hyperband" else NopPruner()


def _tell_result(study: Study, optuna_trial: OptunaTrial, run: Run | None) -> None:
    from optuna.trial import TrialState

    if run is None or not run.exists or not run.is_finished:
        study.tell(optuna_trial, state=TrialState.FAIL)
        return
    report_epochs(optuna_trial, run.read_history())
    if run.status == "pruned":
        study.tell(optuna_trial, state=TrialState.PRUNED)
    else:
        study.tell(optuna_trial, compute_selection_score(run))


def compute_selection_score(run: Run) -> float:
    """Return the score of a run that is done, by which the best trial is chosen."""
    val_metrics = run.metrics["val"]
    return selection_score(val_metrics["accuracy"], val_metrics["loss"])


def report_epochs(optuna_trial: OptunaTrial, rows: Sequence[Mapping[str, str]]) -> bool:
    """Report the epochs in `rows` of a `history.csv` and return whether to stop after the last of them."""
    should_prune = False
    for row in rows:
        optuna_trial.report(float(row["val_accuracy"]), int(row["epoch"]))
        should_prune = optuna_trial.should_prune()
    return should_prune
