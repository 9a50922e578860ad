"""A search from start to end, or from where it was left: chooses trials by those before, and lets whatever launcher
there is run them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from thaw.config.errors import Problem, UserError
from thaw.config.search_space import Dimension, SearchSettings, get_search_settings, parse_search_space
from thaw.runs.run import FINISHED_STATUSES, read_status
from thaw.runs.search import Search, SearchTrial, find_trial_runs, read_search, write_search
from thaw.sweep.sampling import suggest_values


def run_search(config: DictConfig, context: HydraContext, task: TaskFunction, arguments: Sequence[str]) -> None:
    """Runs the trials that `arguments` ask for, in place of a sweeper of Hydra's: these have to lie in a package of
    another name. `config` is what they share.

    Raises:
        UserFault: where the directory of the sweep holds a search of another space.
    """
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    overrides = OverridesParser.create(config_loader=context.config_loader).parse_overrides(list(arguments))
    space, fixed_overrides = parse_search_space(overrides)
    settings = SearchSettings.model_validate(get_search_settings(config))
    search_run = SearchRun(Path(config.hydra.sweep.dir), space, fixed_overrides, launcher)
    finished_search = search_run.run(settings, settings.batch or _count_parallel_trials(config))
    from thaw.sweep.search_report import report_search

    report_search(search_run.directory, finished_search, space, fixed_overrides)


def _count_parallel_trials(config: DictConfig) -> int:
    """How many trials the launcher runs at once, as far as it says."""
    count = int(config.hydra.launcher.get("n_jobs") or 1)
    return count if count > 0 else max(1, (os.cpu_count() or 1) + 1 + count)  # as joblib counts


@dataclass(frozen=True)
class SearchRun:
    directory: Path
    space: Sequence[Dimension]
    fixed_overrides: Sequence[str]
    launcher: Launcher

    def run(self, settings: SearchSettings, trials_per_batch: int) -> Search:
        """Chooses and runs `together` trials after another. Those of before are not chosen again, and those of them
        that are done or pruned not run again."""
        search = self._load_or_create_search(settings)
        for n_completed, batch in groupby(search.trials, lambda trial: trial.known):
            self._run_trials(list(batch), n_completed)
        while (n_completed := len(search.trials)) < settings.trials:
            for _ in range(min(trials_per_batch, settings.trials - n_completed)):
                search = search.with_trial(
                    SearchTrial(suggest_values(self.directory, search, n_completed, self.space), n_completed)
                )
            write_search(self.directory, search)  # before they start: a killed search goes on with the same ones
            self._run_trials(search.trials[n_completed:], n_completed)
        return search

    def _load_or_create_search(self, settings: SearchSettings) -> Search:
        space = {entry.key: entry.expression for entry in self.space}
        existing_search = read_search(self.directory)
        if existing_search and existing_search.space != space:
            got, valid = (
                " ".join(f"{key}={value}" for key, value in entry.items()) for entry in (space, existing_search.space)
            )
            raise UserError("the search has begun otherwise.", [Problem(str(self.directory), got, valid)])
        return existing_search or Search(
            seed=settings.seed,
            random_trials=settings.random_trials,
            pruner=settings.pruner,
            spared_trials=settings.spared_trials,
            spared_epochs=settings.spared_epochs,
            space=space,
        )

    def _run_trials(self, trials: Sequence[SearchTrial], first_number: int) -> None:
        runs = find_trial_runs(self.directory)
        if all(
            item in runs and read_status(runs[item]) in FINISHED_STATUSES
            for item in range(first_number, first_number + len(trials))
        ):
            return
        jobs = [
            [*self.fixed_overrides, *(item.format_override(trial.values[item.key]) for item in self.space)]
            for trial in trials
        ]
        for result in self.launcher.launch(jobs, initial_job_idx=first_number):
            _ = result.return_value  # raises what the launcher has caught
