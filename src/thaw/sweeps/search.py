"""A search of hyperparameters: choose each trial's values with Optuna, and run the trials."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from thaw.config.errors import Problem, UserError
from thaw.config.search_space import Dimension, SearchSettings, get_search_settings, parse_search_space
from thaw.runs.search import Search, SearchTrial, find_trial_runs, read_search, study_up_to, write_search

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

SIGNIFICANT_DIGITS = 4  # of a chosen number: enough to distinguish trials, few enough to type
MAX_TPE_ATTEMPTS = 10  # to find values that no trial had; then values are drawn at random


def build_distributions(space: Sequence[Dimension]) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution for each key of `space`."""
    return {dimension.key: _build_distribution(dimension) for dimension in space}


def _build_distribution(dimension: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if dimension.kind == "choice" or len(dimension.values) == 1:
        return CategoricalDistribution(dimension.values)
    low, high = dimension.values[0], dimension.values[-1]
    step = dimension.values[1] - low if dimension.kind == "range" else None
    if isinstance(low, int):
        return IntDistribution(low, high, log=dimension.is_log_scale, step=step or 1)
    return FloatDistribution(low, high, log=dimension.is_log_scale, step=step)


def suggest_values(directory: Path, search: Search, n_completed: int, space: Sequence[Dimension]) -> dict[str, Any]:
    """Return the values of the trial after the last one of `search`, chosen from the results of the first
    `n_completed` ones.

    No earlier trial has the same values, because that would be the same run. The values depend only on the arguments
    and the runs in `directory`.
    """
    number, param_distributions = len(search.trials), build_distributions(space)
    study = study_up_to(directory, search, number, n_completed, param_distributions)
    previous_values = [trial.values for trial in search.trials]
    for attempt in count():
        study.sampler = _create_sampler(search, number, attempt)
        params = study.ask(param_distributions).params
        values = {dimension.key: _round_value(params[dimension.key], dimension) for dimension in space}
        if values not in previous_values:
            return values
    raise AssertionError


def _create_sampler(search: Search, number: int, attempt: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    digest = hashlib.sha256(f"{search.seed} {number} {attempt}".encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    if attempt >= MAX_TPE_ATTEMPTS:
        return RandomSampler(seed)
    return TPESampler(n_startup_trials=search.random_trials, multivariate=True, constant_liar=True, seed=seed)


def _round_value(value: Any, dimension: Dimension) -> Any:
    """Round a value of an interval to SIGNIFICANT_DIGITS within its ends, one of a range to the number as typed."""
    if dimension.kind == "range":
        return min(dimension.values, key=lambda number: abs(number - value))
    if dimension.kind != "interval" or not isinstance(value, float):
        return value
    low, high = dimension.values
    return min(high, max(low, float(f"{value:.{SIGNIFICANT_DIGITS}g}")))


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
