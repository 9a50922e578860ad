"""Choose the values of the next trial of a search with Optuna."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.config.search_space import Dimension
from thaw.runs.search import Search, study_up_to

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
