"""What a search chooses from, in Optuna's terms, and what it chooses next."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.config.search import Dimension
from thaw.training.trials import Search, study_before

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler

DIGITS = 4  # of a chosen number: enough to tell trials apart, few enough to type
ASKED_OF_TPE = 10  # times for values that no trial had; a small space is then filled evenly


def distributions(space: Sequence[Dimension]) -> dict[str, BaseDistribution]:
    return {one.key: _distribution(one) for one in space}


def _distribution(one: Dimension) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if one.kind == "choice" or len(one.values) == 1:
        return CategoricalDistribution(one.values)
    low, high = one.values[0], one.values[-1]
    step = one.values[1] - low if one.kind == "range" else None
    if isinstance(low, int):
        return IntDistribution(low, high, log=one.log, step=step or 1)
    return FloatDistribution(low, high, log=one.log, step=step)


def next_values(directory: Path, search: Search, known: int, space: Sequence[Dimension]) -> dict[str, Any]:
    """Values for the trial behind the last of `search`, by the results of the first `known`: those of no trial before,
    as a run with the same values would be the same run. A function of its arguments and what lies in `directory`."""
    number, found = len(search.trials), distributions(space)
    study = study_before(directory, search, number, known, found)
    tried = [trial.values for trial in search.trials]
    for attempt in count():
        study.sampler = _sampler(search, number, attempt)
        values = {one.key: _rounded(value, one) for one, value in _pairs(space, study.ask(found).params)}
        if values not in tried:
            return values
    raise AssertionError


def _sampler(search: Search, number: int, attempt: int) -> BaseSampler:
    from optuna.samplers import RandomSampler, TPESampler

    digest = hashlib.sha256(f"{search.seed} {number} {attempt}".encode()).digest()
    seed = int.from_bytes(digest[:4], "big")
    if attempt >= ASKED_OF_TPE:
        return RandomSampler(seed)
    return TPESampler(n_startup_trials=search.random_trials, multivariate=True, constant_liar=True, seed=seed)


def _pairs(space: Sequence[Dimension], chosen: Mapping[str, Any]) -> list[tuple[Dimension, Any]]:
    return [(one, chosen[one.key]) for one in space]


def _rounded(value: Any, one: Dimension) -> Any:
    """Of an interval to DIGITS digits, within its ends; of a range the number as it is typed."""
    if one.kind == "range":
        return min(one.values, key=lambda number: abs(number - value))
    if one.kind != "interval" or not isinstance(value, float):
        return value
    low, high = one.values
    return min(high, max(low, float(f"{value:.{DIGITS}g}")))
