"""Run a search: choose trials from the results of earlier ones and let a launcher run them."""

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
from thaw.runs.search import Search, SearchTrial, find_trial_runs, read_search, write_search
from thaw.sweep.sampling import suggest_values


def run_search(
    config: DictConfig,
    context: HydraContext,
    task: TaskFunction,
    arguments: Sequence[str],
) -> tuple[SearchRun, Search]:
    """Run the trials of the search that `arguments` describe; `config` is the configuration that they share.

    It takes the place of a sweeper plugin of Hydra, which would have to be in the package `hydra_plugins`.

    Raises:
        UserError: if the directory of the sweep holds a search of another space.
    """
    launcher = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    overrides = OverridesParser.create(config_loader=context.config_loader).parse_overrides(list(arguments))
    space, fixed_overrides = parse_search_space(overrides)
    settings = SearchSettings.model_validate(get_search_settings(config))
    search_run = SearchRun(Path(config.hydra.sweep.dir), space, fixed_overrides, launcher)
    return search_run, search_run.run(settings, settings.batch or _count_parallel_trials(config))


def _count_parallel_trials(config: DictConfig) -> int:
    """Return how many trials the launcher runs in parallel, if its configuration says so; otherwise 1."""
    count = int(config.hydra.launcher.get("n_jobs") or 1)
    return (
        count if count > 0 else max(1, (os.cpu_count() or 1) + 1 + count)
    )  # negative numbers count as joblib counts them


@dataclass(frozen=True)
class SearchRun:
    """A search in a directory: the dimensions of its space, the overrides that all trials share, the launcher."""

    directory: Path
    space: Sequence[Dimension]
    fixed_overrides: Sequence[str]
    launcher: Launcher

    def run(self, settings: SearchSettings, trials_per_batch: int) -> Search:
        """Run the search, `trials_per_batch` trials at a time. Trials of an earlier start are not chosen again, and
        those that are done or pruned are not run again."""
        search = self._load_or_create_search(settings)
        for n_completed, batch in groupby(search.trials, lambda trial: trial.n_completed):
            self._run_trials(list(batch), n_completed)
        while (n_completed := len(search.trials)) < settings.trials:
            for _ in range(min(trials_per_batch, settings.trials - n_completed)):
                search = search.with_trial(
                    SearchTrial(suggest_values(self.directory, search, n_completed, self.space), n_completed)
                )
            write_search(
                self.directory, search
            )  # before they start, so that a killed search continues with the same trials
            self._run_trials(search.trials[n_completed:], n_completed)
        return search

    def _load_or_create_search(self, settings: SearchSettings) -> Search:
        space = {dimension.key: dimension.expression for dimension in self.space}
        existing_search = read_search(self.directory)
        if existing_search and existing_search.space != space:
            got, valid = (
                " ".join(f"{key}={expression}" for key, expression in expressions.items())
                for expressions in (space, existing_search.space)
            )
            raise UserError(
                "the directory holds a search of another space.", [Problem(str(self.directory), got, valid)]
            )
        return existing_search or Search(
            seed=settings.seed,
            random_trials=settings.random_trials,
            pruner=settings.pruner,
            n_startup_trials=settings.n_startup_trials,
            n_warmup_steps=settings.n_warmup_steps,
            space=space,
        )

    def _run_trials(self, trials: Sequence[SearchTrial], first_number: int) -> None:
        runs = find_trial_runs(self.directory)
        numbers = range(first_number, first_number + len(trials))
        if all(number in runs and runs[number].exists and runs[number].is_finished for number in numbers):
            return
        jobs = [[*self.fixed_overrides, *self.format_overrides(trial)] for trial in trials]
        for result in self.launcher.launch(jobs, initial_job_idx=first_number):
            _ = result.return_value  # raises the exception that the launcher has caught

    def format_overrides(self, trial: SearchTrial) -> list[str]:
        """Return the values of a trial as overrides."""
        return [dimension.format_override(trial.values[dimension.key]) for dimension in self.space]
