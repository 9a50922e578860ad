"""Parse and check a search: its settings, and the space from which it chooses values."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep
from omegaconf import DictConfig, OmegaConf
from pydantic import NonNegativeInt, PositiveInt, ValidationError

from thaw.config.errors import Problem, find_closest_name
from thaw.config.schema import CaptchaDatasetConfig, CsvDatasetConfig, FolderDatasetConfig, Recipe, StrictModel

SWEEPER_TARGET = "thaw.sweeps.search.run_search"
EXAMPLE_OVERRIDE = "'optimizer.learning_rate=tag(log,interval(1e-5,1e-1))'"
VALIDATION_SPLIT_KEYS = (
    "folds",
    "fold",
    "dataset",
    "dataset.val",
    "dataset.draw_seed",
    "dataset.split_seed",
    "dataset.group_column",
    "dataset.group_pattern",
    "dataset.fractions.val",
    "dataset.fractions.test",
    "dataset.per_class",
    "data.exclude",
    "data.relabel",
)


class SearchSettings(StrictModel):
    """The settings of a search: the keys of `hydra.sweeper` in conf/hydra/sweeper/search.yaml."""

    trials: PositiveInt
    """Trials in all, pruned ones included."""
    random_trials: NonNegativeInt
    """Completed trials before TPE chooses values; until then they are drawn at random from the space."""
    pruner: Literal["median", "hyperband", "none"]
    """Which trials are stopped early. median: those worse, after an epoch, than the median of the trials before."""
    n_startup_trials: NonNegativeInt
    """Completed trials before the median pruner stops any."""
    n_warmup_steps: NonNegativeInt
    """First epochs of each trial in which it is not stopped."""
    batch: PositiveInt | None
    """Trials whose values are chosen together, without knowing each other's results; null: the launcher's n_jobs,
    else 1."""
    seed: NonNegativeInt
    """Seed of the choice of values; the seed of the runs is a key of the recipe."""


@dataclass(frozen=True)
class Dimension:
    """One key and the values from which a search chooses. `values` are the ends of an interval, the numbers of a range,
    or choices as they were typed. `prefix` is the start of an override of the key: "", "+" or "++"."""

    key: str
    prefix: str
    expression: str
    kind: Literal["interval", "range", "choice"]
    values: tuple[Any, ...]
    tags: frozenset[str]

    @property
    def is_log_scale(self) -> bool:
        """Whether values are drawn on a logarithmic scale."""
        return "log" in self.tags

    @property
    def num_values(self) -> int | None:
        """The number of values; None if they cannot be counted."""
        if self.kind != "interval":
            return len(self.values)
        low, high = self.values
        return high - low + 1 if isinstance(low, int) else None

    @property
    def extreme_values(self) -> tuple[Any, ...]:
        """The lowest and the highest value; for choices all of them."""
        return self.values if self.kind == "choice" else tuple(dict.fromkeys((self.values[0], self.values[-1])))

    def format_override(self, value: Any) -> str:
        """Return the override that sets the key to `value`."""
        return f"{self.prefix}{self.key}={value}"


def is_search(shared_config: DictConfig) -> bool:
    """Whether the sweep whose jobs share `shared_config` is a search by thaw."""
    return bool(shared_config.hydra.sweeper.get("_target_") == SWEEPER_TARGET)


def parse_search_space(overrides: Sequence[Override]) -> tuple[list[Dimension], list[str]]:
    """Return the dimensions of the space and the overrides that all trials share; the last override of a key counts."""
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
    """Return 0.3 for 0.30000000000000004, which is a sum of steps."""
    return number if isinstance(number, int) else float(f"{number:.12g}")


def extreme_points(overrides: Sequence[Override]) -> list[list[str]]:
    """Return jobs at the ends of the space: the first, those that differ from it in one key, and the last."""
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
    """Yield the problems of a search as a whole; those of its trials are found at the ends of the space."""
    if importlib.util.find_spec("optuna") is None:
        yield Problem("a search needs Optuna", "not installed", fix='pip install "thaw[search]"')
    settings = get_search_settings(shared_config)
    yield from _find_settings_problems(settings)
    dimensions, _ = parse_search_space(overrides)
    if not dimensions:
        yield Problem(
            "nothing to search", "only single values", "an interval, a range or several values", EXAMPLE_OVERRIDE
        )
    problems = [problem for dimension in dimensions for problem in _find_dimension_problems(dimension)]
    yield from problems
    if not problems:
        yield from _check_trial_count(dimensions, settings["trials"])


def get_search_settings(shared_config: DictConfig) -> dict[str, Any]:
    """Return the values of SearchSettings, unchecked."""
    values = OmegaConf.to_container(shared_config.hydra.sweeper, resolve=True)
    assert isinstance(values, dict)
    return {key: values[key] for key in SearchSettings.model_fields}


def _find_settings_problems(settings: Mapping[str, Any]) -> Iterator[Problem]:
    try:
        SearchSettings.model_validate(settings)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            key, valid = f"hydra.sweeper.{detail['loc'][0]}", detail["msg"].removeprefix("Input should be ")
            names = re.findall(r"'(\w+)'", valid)
            closest_name = find_closest_name(str(detail["input"]), names)
            fix = f"{key}={closest_name}" if closest_name else ""
            yield Problem(f"{key}={detail['input']}", repr(detail["input"]), valid, fix)


def _find_dimension_problems(dimension: Dimension) -> Iterator[Problem]:
    subject = f"{dimension.key}={dimension.expression}"
    if unknown_tags := sorted(dimension.tags - {"log"}):
        yield Problem(subject, f"the tag {unknown_tags[0]}", "the tag log, or none")
    if not dimension.values or (dimension.kind == "interval" and dimension.values[0] >= dimension.values[1]):
        yield Problem(subject, "an empty range", "a low end, then a high one")
    elif dimension.is_log_scale and (dimension.kind != "interval" or dimension.values[0] <= 0):
        fix = f"{dimension.key}=tag(log,interval(LOW,HIGH)), or int(interval(LOW,HIGH)) in it"
        yield Problem(subject, "no logarithm", "an interval above 0", fix)
    if dimension.key == "seed":
        got = "the best of several seeds is the luckiest"
        yield Problem(subject, got, "a search over settings, all with one seed", "seed=VALUE")
    elif dimension.key in VALIDATION_SPLIT_KEYS:
        got = "it decides which images are validation images"
        yield Problem(subject, got, "a search compares all trials on the same images", f"{dimension.key}=VALUE")


def _check_trial_count(dimensions: Sequence[Dimension], num_trials: int) -> Iterator[Problem]:
    """Yield a problem if there are more trials than combinations: the same values always give the same result."""
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


def has_validation_source(dataset: FolderDatasetConfig | CsvDatasetConfig, folds: int | None) -> bool:
    """Return whether the data set may have validation images of its own: a folder, or values of a column. With `folds`
    all validation images are taken from the parts that are not tested."""
    if folds is not None:
        return False
    if isinstance(dataset, CsvDatasetConfig):
        return dataset.split_column is not None
    return dataset.splits is not None and dataset.splits.val is not None


def check_search_validation(recipe: Recipe) -> Iterator[Problem]:
    """Yield a problem if there are certainly no validation images, by which a search compares its trials."""
    dataset = recipe.dataset
    if isinstance(dataset, CaptchaDatasetConfig):
        if dataset.val == 0:
            yield Problem("a search compares validation images, and dataset.val=0 draws none", fix="dataset.val=10")
        return
    if dataset.fractions.val == 0 and not has_validation_source(dataset, recipe.folds):
        subject = "a search compares validation images, and dataset.fractions.val=0 leaves none"
        yield Problem(subject, fix="dataset.fractions.val=0.15")
