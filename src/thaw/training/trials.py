"""The trials of a search: what was chosen stands in `search.json`, what came of it in their run directories, and both
together are a study of Optuna's. Nothing else is kept, so there is nothing that could be lost or out of step."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.training.files import write_json
from thaw.training.rank import rank_of
from thaw.training.run import RECORD, status_in

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.pruners import BasePruner
    from optuna.study import Study
    from optuna.trial import Trial as LiveTrial

SEARCH = "search.json"


@dataclass(frozen=True)
class Trial:
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
    trials: tuple[Trial, ...] = field(default=())

    def with_trial(self, trial: Trial) -> Search:
        return replace(self, trials=(*self.trials, trial))


def write_search(directory: Path, search: Search, **results: Any) -> None:
    write_json(directory / SEARCH, {**asdict(search), **results})


def read_search(directory: Path) -> Search | None:
    """The search in the sweep's `directory`; None where there is none."""
    if not (directory / SEARCH).is_file():
        return None
    content = json.loads((directory / SEARCH).read_text(encoding="utf-8"))
    trials = tuple(Trial(one["values"], one["known"]) for one in content["trials"])
    named = {key: content[key] for key in Search.__dataclass_fields__ if key != "trials"}
    return Search(**named, trials=trials)


def is_trial(run: Path) -> bool:
    """Whether the run in directory `run` is one of a search."""
    return (run.parent / SEARCH).is_file()


def runs_of(directory: Path) -> dict[int, Path]:
    """Run directories in the sweep's `directory`, by the number of the job."""
    found = [file.parent for file in directory.glob(f"*/{RECORD}")]
    return {int(run.name.partition("_")[0]): run for run in found}


def metrics_of_run(run: Path) -> dict[str, Any]:
    metrics: dict[str, Any] = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    return metrics


def trial_under_way(run: Path) -> LiveTrial:
    """Optuna's trial for the run in directory `run`, which has reported nothing yet."""
    search, number = read_search(run.parent), int(run.name.partition("_")[0])
    assert search is not None
    return study_before(run.parent, search, number, search.trials[number].known).ask()


def study_before(
    directory: Path, search: Search, number: int, known: int, space: Mapping[str, BaseDistribution] | None = None
) -> Study:
    """A study in memory of the trials before `number`, of which the first `known` have their results and the others are
    under way. They are told anew, epoch by epoch: pruners keep accounts of their own. With `space`, their values too.
    """
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    evenly = optuna.samplers.RandomSampler(seed=0)  # of no effect: all values are given
    study = optuna.create_study(study_name="thaw", direction="maximize", sampler=evenly, pruner=_pruner(search))
    runs = runs_of(directory)
    for place, trial in enumerate(search.trials[:number]):
        if space:
            study.enqueue_trial(trial.values)
        live = study.ask(dict(space or {}))
        if place < known:
            _tell(study, live, runs.get(place))
    return study


def _pruner(search: Search) -> BasePruner:
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    first_epoch = search.spared_epochs + 1
    if search.pruner == "median":
        return MedianPruner(n_startup_trials=search.spared_trials, n_warmup_steps=first_epoch)
    return HyperbandPruner(min_resource=first_epoch) if search.pruner == "hyperband" else NopPruner()


def _tell(study: Study, live: LiveTrial, run: Path | None) -> None:
    from optuna.trial import TrialState

    from thaw.training.history_file import read_history

    status = status_in(run) if run else None
    if run is None or status not in ("done", "pruned"):
        study.tell(live, state=TrialState.FAIL)
        return
    report(live, read_history(run / "history.csv"))
    if status == "pruned":
        study.tell(live, state=TrialState.PRUNED)
    else:
        val = metrics_of_run(run)["val"]
        study.tell(live, rank_of(val["accuracy"], val["loss"]))


def report(live: LiveTrial, rows: Sequence[Mapping[str, str]]) -> bool:
    """Tells the epochs in `rows` of a `history.csv`; whether the last of them is one to stop after."""
    is_bad = False
    for row in rows:
        live.report(float(row["val_accuracy"]), int(row["epoch"]))
        is_bad = live.should_prune()
    return is_bad
