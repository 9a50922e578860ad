"""A search as a command line describes it: its settings, and the space in which it looks for values."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep
from omegaconf import DictConfig, OmegaConf
from pydantic import NonNegativeInt, PositiveInt, ValidationError

from thaw.config.errors import Problem
from thaw.config.schema import CaptchaDatasetConfig, FolderDatasetConfig, Recipe, StrictModel

SWEEPER_TARGET = "thaw.sweep.search.run_search"
EXAMPLE_OVERRIDE = "'optimizer.learning_rate=tag(log,interval(1e-5,1e-1))'"
VALIDATION_SPLIT_KEYS = (
    "seed",
    "dataset",
    "dataset.val",
    "dataset.draw_seed",
    "dataset.fractions.val",
    "dataset.fractions.test",
    "dataset.per_class",
)


class SearchSettings(StrictModel):
    """The keys of conf/hydra/sweeper/search.yaml, which says what they mean."""

    trials: PositiveInt
    random_trials: NonNegativeInt
    pruner: Literal["median", "hyperband", "none"]
    n_startup_trials: NonNegativeInt
    n_warmup_steps: NonNegativeInt
    batch: PositiveInt | None
    seed: NonNegativeInt


@dataclass(frozen=True)
class Dimension:
    """One key and what its value is chosen from. `values` are the ends of an interval, the numbers of a range, or
    choices as they are typed. `prefix` is what an override of the key begins with."""

    key: str
    prefix: str
    expression: str
    kind: Literal["interval", "range", "choice"]
    values: tuple[Any, ...]
    tags: frozenset[str]

    @property
    def is_log_scale(self) -> bool:
        return "log" in self.tags

    @property
    def num_values(self) -> int | None:
        """How many values there are; None where they cannot be counted."""
        if self.kind != "interval":
            return len(self.values)
        low, high = self.values
        return high - low + 1 if isinstance(low, int) else None

    @property
    def extreme_values(self) -> tuple[Any, ...]:
        """The values between which all others lie; of choices all."""
        return self.values if self.kind == "choice" else tuple(dict.fromkeys((self.values[0], self.values[-1])))

    def format_override(self, value: Any) -> str:
        return f"{self.prefix}{self.key}={value}"


def is_search(shared_config: DictConfig) -> bool:
    """Whether the sweep whose jobs share `shared` is a search of thaw's own."""
    return bool(shared_config.hydra.sweeper.get("_target_") == SWEEPER_TARGET)


def parse_search_space(overrides: Sequence[Override]) -> tuple[list[Dimension], list[str]]:
    """What is searched, and the overrides that all trials share. Of several of the same key the last counts."""
    last_by_key = {override.get_key_element(): override for override in overrides}
    dimensions = [_build_dimension(override) for override in last_by_key.values() if override.is_sweep_override()]
    fixed_overrides = [
        f"{key}={override.get_value_element_as_str()}" if not override.is_delete() else str(override.input_line)
        for key, override in last_by_key.items()
        if not override.is_sweep_override()
    ]
    return dimensions, fixed_overrides


def _build_dimension(override: Override) -> Dimension:
    key_element, sweep = override.get_key_element(), override.value()
    assert isinstance(sweep, Sweep)
    key = key_element.lstrip("+")
    prefix, expression = key_element.removesuffix(key), str(override.input_line).split("=", 1)[1]
    tags = frozenset(sweep.tags)
    if isinstance(sweep, IntervalSweep):
        return Dimension(key, prefix, expression, "interval", (sweep.start, sweep.end), tags)
    if isinstance(sweep, RangeSweep):
        return Dimension(key, prefix, expression, "range", tuple(sorted(map(_round_float, sweep.range()))), tags)
    return Dimension(key, prefix, expression, "choice", tuple(dict.fromkeys(override.sweep_string_iterator())), tags)


def _round_float(number: float) -> float:
    """0.3 for 0.30000000000000004, as sums of steps have it."""
    return number if isinstance(number, int) else float(f"{number:.12g}")


def extreme_points(overrides: Sequence[Override]) -> list[list[str]]:
    """Jobs at the ends of the space: the first, those where one key has left its first end, and the last."""
    dimensions, fixed_overrides = parse_search_space(overrides)
    lines_by_dimension = [
        [dimension.format_override(value) for value in dimension.extreme_values] for dimension in dimensions
    ]
    first_point = [lines[0] for lines in lines_by_dimension if lines]
    neighbours = [
        [*first_point[:index], line, *first_point[index + 1 :]]
        for index, lines in enumerate(lines_by_dimension)
        for line in lines[1:]
    ]
    points = [first_point, *neighbours, [lines[-1] for lines in lines_by_dimension if lines]]
    return [[*fixed_overrides, *lines] for index, lines in enumerate(points) if lines not in points[:index]]


def find_search_problems(shared_config: DictConfig, overrides: Sequence[Override]) -> Iterator[Problem]:
    """Of a search as a whole; those of its trials are looked for at its corners."""
    if importlib.util.find_spec("optuna") is None:
        yield Problem("a search needs Optuna", "not installed", fix='pip install "thaw[search]"')
    settings = get_search_settings(shared_config)
    yield from _find_settings_problems(settings)
    dimensions, _ = parse_search_space(overrides)
    if not dimensions:
        yield Problem(
            "nothing to search", "single values alone", "an interval, a range or several values", EXAMPLE_OVERRIDE
        )
    problems = [problem for dimension in dimensions for problem in _find_dimension_problems(dimension)]
    yield from problems
    if not problems:
        yield from _check_trial_count(dimensions, settings["trials"])


def get_search_settings(shared_config: DictConfig) -> dict[str, Any]:
    """The values of SearchSettings, unchecked."""
    values = OmegaConf.to_container(shared_config.hydra.sweeper, resolve=True)
    assert isinstance(values, dict)
    return {key: values[key] for key in SearchSettings.model_fields}


def _find_settings_problems(settings: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        SearchSettings.model_validate(settings)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key, valid = f"hydra.sweeper.{detail['loc'][0]}", detail["msg"].removeprefix("Input should be ")
            yield Problem(f"{key}={detail['input']}", repr(detail["input"]), valid)


def _find_dimension_problems(dimension: Dimension) -> Iterator[Problem]:
    subject = f"{dimension.key}={dimension.expression}"
    if unknown_tags := sorted(dimension.tags - {"log"}):
        yield Problem(subject, f"the tag {unknown_tags[0]}", "the tag log, or none")
    if not dimension.values or (dimension.kind == "interval" and dimension.values[0] >= dimension.values[1]):
        yield Problem(subject, "nothing in it", "a low end, then a high one")
    elif dimension.is_log_scale and (dimension.kind != "interval" or dimension.values[0] <= 0):
        fix = f"{dimension.key}=tag(log,interval(LOW,HIGH)), or int(interval(LOW,HIGH)) in it"
        yield Problem(subject, "no logarithm", "an interval above 0", fix)
    if dimension.key in VALIDATION_SPLIT_KEYS:
        got = "it decides which images are in validation"
        yield Problem(subject, got, "a search compares all trials on the same images", f"{dimension.key}=VALUE")


def _check_trial_count(dimensions: Sequence[Dimension], num_trials: int) -> Iterator[Problem]:
    """A trial is a function of its values: to try them twice tells nothing new."""
    num_combinations = 1
    for dimension in dimensions:
        if dimension.num_values is None:
            return
        num_combinations *= dimension.num_values
    if dimensions and isinstance(num_trials, int) and num_trials > num_combinations:
        fix = f"hydra.sweeper.trials={num_combinations}, or the same without sweep=search, which tries all"
        yield Problem(
            f"hydra.sweeper.trials={num_trials}",
            f"a space of {num_combinations} combinations",
            f"at most {num_combinations}",
            fix,
        )


def check_search_validation(recipe: Recipe) -> Iterator[Problem]:
    """Where it is certain that there is nothing that a search could go by."""
    dataset = recipe.dataset
    if isinstance(dataset, CaptchaDatasetConfig):
        if dataset.val == 0:
            yield Problem("a search goes by validation images, and dataset.val=0 draws none", fix="dataset.val=10")
        return
    validation_source = dataset.splits.val if isinstance(dataset, FolderDatasetConfig) else dataset.split_column
    if dataset.fractions.val == 0 and not validation_source:
        subject = "a search goes by validation images, and dataset.fractions.val=0 cuts none"
        yield Problem(subject, fix="dataset.fractions.val=0.15")
