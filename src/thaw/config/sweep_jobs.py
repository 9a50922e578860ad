"""Count and list the jobs of a sweep, and compute their values without composing each, which takes 0.1 s a job."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.types import Override, RangeSweep, Transformer

from thaw.config.errors import Problem
from thaw.config.job_composer import Composer, has_interpolations, resolve_values
from thaw.config.suggestions import to_plain

Item = TypeVar("Item")
MAX_JOBS = 10_000
MAX_COMPOSED_JOBS = 30  # jobs that differ in more than plain values; each takes 0.1 s


def count_values(override: Override) -> float:
    """Return the number of values of a sweep over one key without listing them; a range may be endless."""
    sweep = override.value()
    if not isinstance(sweep, RangeSweep):
        return len(list(override.sweep_iterator()))
    numbers = (sweep.start, sweep.stop, sweep.step)
    if not all(isinstance(number, int) or (number is not None and math.isfinite(number)) for number in numbers):
        return math.inf
    start, stop, step = numbers
    assert start is not None
    assert stop is not None
    if step == 0:
        return math.inf
    if all(isinstance(number, int) for number in numbers):
        return max(0, -int((start - stop) // step))
    return max(0, math.ceil((float(stop) - float(start)) / float(step)))


def find_size_problems(overrides: Sequence[Override]) -> Iterator[Problem]:
    """Yield a problem for a sweep over no value, and for more jobs than thaw runs."""
    num_jobs, too_long = 1.0, False
    for override in _select_last(overrides):
        if not override.is_discrete_sweep():
            continue
        line, num_values = str(override.input_line), count_values(override)
        num_jobs *= num_values
        if num_values == 0:
            yield Problem(
                line, "no values: a sweep without jobs", "at least one value", f"{override.key_or_group}=VALUE"
            )
        elif num_values > MAX_JOBS:
            too_long = True
            got = "an endless range" if math.isinf(num_values) else f"{num_values:,} values"
            yield Problem(
                line, got, f"at most {MAX_JOBS:,} jobs", f"{override.key_or_group}=VALUE,VALUE, or sweep=search"
            )
    if num_jobs > MAX_JOBS and not too_long:
        fix = "fewer values, or sweep=search, which tries some of the combinations"
        yield Problem("the sweep", f"{int(num_jobs):,} jobs", f"at most {MAX_JOBS:,} jobs", fix)


def _select_last(overrides: Sequence[Override]) -> list[Override]:
    return list({override.get_key_element(): override for override in overrides}.values())


def expand_jobs(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the overrides of each job in the order in which Hydra runs them."""
    (jobs,) = BasicSweeper.split_arguments(list(overrides), max_batch_size=None)
    return [list(job) for job in jobs]


@dataclass(frozen=True)
class SweepValues:
    """The values of each job. Jobs that differ only in plain values, such as a seed, are composed once. `swept_values`
    maps the overrides that are set afterwards to their keys and values."""

    composer: Composer
    swept_values: Mapping[str, tuple[str, Any]]
    composed_values: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)

    def select_composed_lines(self, job: Sequence[str]) -> tuple[str, ...]:
        """Return the overrides of a job that Hydra composes."""
        return tuple(line for line in job if line not in self.swept_values)

    def compute_values(self, job: Sequence[str]) -> dict[str, Any]:
        """Return the values of the recipe with the overrides `job`.

        Raises:
            HydraException, OmegaConfBaseException: if they cannot be composed.
        """
        composed_lines = self.select_composed_lines(job)
        if composed_lines not in self.composed_values:
            self.composed_values[composed_lines] = resolve_values(self.composer.compose_job(composed_lines))
        values = self.composed_values[composed_lines]
        for line in job:
            if line in self.swept_values:
                key, value = self.swept_values[line]
                values = _set_value(values, key.split("."), value)
        return values


def _set_value(values: Mapping[str, Any], key_path: Sequence[str], value: Any) -> dict[str, Any]:
    """Return a copy of `values` with another value; mappings are merged, as Hydra does."""
    key, *deeper_path = key_path
    previous = values.get(key)
    if deeper_path:
        return {**values, key: _set_value(previous if isinstance(previous, dict) else {}, deeper_path, value)}
    if isinstance(value, dict) and isinstance(previous, dict):
        return {**values, key: _merge(previous, value)}
    return {**values, key: value}


def _merge(values: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(values)
    for key, value in changes.items():
        merged = _set_value(merged, [str(key)], value)
    return merged


def build_sweep_values(overrides: Sequence[Override], job: Sequence[str], composer: Composer) -> SweepValues:
    """Return the values of the jobs of `overrides`, of which `job` is one.

    Raises:
        HydraException, OmegaConfBaseException: if it cannot be composed.
    """
    swept_values: dict[str, tuple[str, Any]] = {}
    if has_interpolations(composer.compose_job(job)):  # other values may depend on a swept one
        return SweepValues(composer, swept_values)
    for override in _select_last(overrides):
        if _is_plain(override, overrides, composer):
            for value in override.sweep_iterator():
                line = f"{override.get_key_element()}={Transformer.encode(value)}"
                swept_values[line] = (override.key_or_group, to_plain(value))
    return SweepValues(composer, swept_values)


def _is_plain(override: Override, overrides: Sequence[Override], composer: Composer) -> bool:
    """Whether the swept values can be set after composing: no group, no item of a list, no interpolation, and no key
    above or below that of another override."""
    key = override.key_or_group
    if not override.is_discrete_sweep() or key.startswith("hydra") or composer.group_choices.get_choices(key):
        return False
    if "$" in str(override.input_line) or any(part.isdigit() for part in key.split(".")):
        return False
    other_keys = [other.key_or_group for other in overrides if other.get_key_element() != override.get_key_element()]
    return not any(
        other == key or key.startswith(f"{other}.") or other.startswith(f"{key}.")
        for other in other_keys
        if not composer.group_choices.get_choices(other)
    )


def select_jobs(jobs: Sequence[list[str]], sweep_values: SweepValues) -> list[list[str]]:
    """Return the jobs to check: all, unless too many of them must be composed. Then those in which a single composed
    override differs from the first job's, evenly spaced."""
    compositions = list(dict.fromkeys(map(sweep_values.select_composed_lines, jobs)))
    if len(compositions) <= MAX_COMPOSED_JOBS:
        return list(jobs)
    neighbours = [lines for lines in compositions if count_differences(lines, compositions[0]) <= 1]
    selected = set(sample_evenly(neighbours, MAX_COMPOSED_JOBS))
    return [job for job in jobs if sweep_values.select_composed_lines(job) in selected]


def count_differences(lines: Sequence[str], other_lines: Sequence[str]) -> int:
    """Return in how many overrides two jobs differ."""
    return sum(line != other for line, other in itertools.zip_longest(lines, other_lines))


def sample_evenly(items: Sequence[Item], limit: int) -> list[Item]:
    """Return at most `limit` of `items`, evenly spaced."""
    if len(items) <= limit:
        return list(items)
    return [items[index] for index in sorted({number * (len(items) - 1) // (limit - 1) for number in range(limit)})]
