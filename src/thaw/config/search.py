"""A search as a command line describes it: its settings, and the space in which it looks for values."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hydra.core.override_parser.types import IntervalSweep, Override, RangeSweep, Sweep
from omegaconf import DictConfig, OmegaConf
from pydantic import NonNegativeInt, PositiveInt, ValidationError

from thaw.config.faults import Fault
from thaw.config.schema import Captcha, Folder, Recipe, Strict

SWEEPER = "thaw.sweep.search.search"
EXAMPLE = "'optimizer.learning_rate=tag(log,interval(1e-5,1e-1))'"
DECIDES_WHAT_IS_SEEN = (
    "seed",
    "dataset",
    "dataset.val",
    "dataset.draw_seed",
    "dataset.fractions.val",
    "dataset.fractions.test",
    "dataset.per_class",
)


class SearchSettings(Strict):
    """The keys of conf/hydra/sweeper/search.yaml, which says what they mean."""

    trials: PositiveInt
    random_trials: NonNegativeInt
    pruner: Literal["median", "hyperband", "none"]
    spared_trials: NonNegativeInt
    spared_epochs: NonNegativeInt
    batch: PositiveInt | None
    seed: NonNegativeInt


@dataclass(frozen=True)
class Dimension:
    """One key and what its value is chosen from. `values` are the ends of an interval, the numbers of a range, or
    choices as they are typed. `prefix` is what an override of the key begins with."""

    key: str
    prefix: str
    words: str
    kind: Literal["interval", "range", "choice"]
    values: tuple[Any, ...]
    tags: frozenset[str]

    @property
    def log(self) -> bool:
        return "log" in self.tags

    @property
    def count(self) -> int | None:
        """How many values there are; None where they cannot be counted."""
        if self.kind != "interval":
            return len(self.values)
        low, high = self.values
        return high - low + 1 if isinstance(low, int) else None

    @property
    def ends(self) -> tuple[Any, ...]:
        """The values between which all others lie; of choices all."""
        return self.values if self.kind == "choice" else tuple(dict.fromkeys((self.values[0], self.values[-1])))

    def line(self, value: Any) -> str:
        return f"{self.prefix}{self.key}={value}"


def is_search(shared: DictConfig) -> bool:
    """Whether the sweep whose jobs share `shared` is a search of thaw's own."""
    return bool(shared.hydra.sweeper.get("_target_") == SWEEPER)


def space_of(overrides: Sequence[Override]) -> tuple[list[Dimension], list[str]]:
    """What is searched, and the overrides that all trials share. Of several of the same key the last counts."""
    last = {one.get_key_element(): one for one in overrides}
    searched = [_dimension(one) for one in last.values() if one.is_sweep_override()]
    fixed = [
        f"{key}={one.get_value_element_as_str()}" if not one.is_delete() else str(one.input_line)
        for key, one in last.items()
        if not one.is_sweep_override()
    ]
    return searched, fixed


def _dimension(override: Override) -> Dimension:
    element, space = override.get_key_element(), override.value()
    assert isinstance(space, Sweep)
    key = element.lstrip("+")
    prefix, words = element.removesuffix(key), str(override.input_line).split("=", 1)[1]
    tags = frozenset(space.tags)
    if isinstance(space, IntervalSweep):
        return Dimension(key, prefix, words, "interval", (space.start, space.end), tags)
    if isinstance(space, RangeSweep):
        return Dimension(key, prefix, words, "range", tuple(sorted(map(_short, space.range()))), tags)
    return Dimension(key, prefix, words, "choice", tuple(dict.fromkeys(override.sweep_string_iterator())), tags)


def _short(number: float) -> float:
    """0.3 for 0.30000000000000004, as sums of steps have it."""
    return number if isinstance(number, int) else float(f"{number:.12g}")


def corners(overrides: Sequence[Override]) -> list[list[str]]:
    """Jobs at the ends of the space: the first, those where one key has left its first end, and the last."""
    space, fixed = space_of(overrides)
    ends = [[one.line(value) for value in one.ends] for one in space]
    first = [lines[0] for lines in ends if lines]
    near = [[*first[:place], line, *first[place + 1 :]] for place, lines in enumerate(ends) for line in lines[1:]]
    found = [first, *near, [lines[-1] for lines in ends if lines]]
    return [[*fixed, *lines] for place, lines in enumerate(found) if lines not in found[:place]]


def faults_of_search(shared: DictConfig, overrides: Sequence[Override]) -> Iterator[Fault]:
    """Of a search as a whole; those of its trials are looked for at its corners."""
    if importlib.util.find_spec("optuna") is None:
        yield Fault("a search needs Optuna", "not installed", fix='pip install "thaw[search]"')
    settings = settings_of(shared)
    yield from _faults_of_settings(settings)
    space, _ = space_of(overrides)
    if not space:
        yield Fault("nothing to search", "single values alone", "an interval, a range or several values", EXAMPLE)
    faults = [fault for one in space for fault in _faults_of_dimension(one)]
    yield from faults
    if not faults:
        yield from _too_many_trials(space, settings["trials"])


def settings_of(shared: DictConfig) -> dict[str, Any]:
    """The values of SearchSettings, unchecked."""
    values = OmegaConf.to_container(shared.hydra.sweeper, resolve=True)
    assert isinstance(values, dict)
    return {key: values[key] for key in SearchSettings.model_fields}


def _faults_of_settings(settings: Mapping[str, Any]) -> Iterator[Fault]:
    try:
        SearchSettings.model_validate(settings)
    except ValidationError as error:
        for one in error.errors(include_url=False):
            key, valid = f"hydra.sweeper.{one['loc'][0]}", one["msg"].removeprefix("Input should be ")
            yield Fault(f"{key}={one['input']}", repr(one["input"]), valid)


def _faults_of_dimension(space: Dimension) -> Iterator[Fault]:
    subject = f"{space.key}={space.words}"
    if unknown := sorted(space.tags - {"log"}):
        yield Fault(subject, f"the tag {unknown[0]}", "the tag log, or none")
    if not space.values or (space.kind == "interval" and space.values[0] >= space.values[1]):
        yield Fault(subject, "nothing in it", "a low end, then a high one")
    elif space.log and (space.kind != "interval" or space.values[0] <= 0):
        fix = f"{space.key}=tag(log,interval(LOW,HIGH)), or int(interval(LOW,HIGH)) in it"
        yield Fault(subject, "no logarithm", "an interval above 0", fix)
    if space.key in DECIDES_WHAT_IS_SEEN:
        got = "it decides which images are in validation"
        yield Fault(subject, got, "a search compares all trials on the same images", f"{space.key}=VALUE")


def _too_many_trials(space: Sequence[Dimension], trials: int) -> Iterator[Fault]:
    """A trial is a function of its values: to try them twice tells nothing new."""
    total = 1
    for one in space:
        if one.count is None:
            return
        total *= one.count
    if space and isinstance(trials, int) and trials > total:
        fix = f"hydra.sweeper.trials={total}, or the same without sweep=search, which tries all"
        yield Fault(f"hydra.sweeper.trials={trials}", f"a space of {total} combinations", f"at most {total}", fix)


def without_validation(recipe: Recipe) -> Iterator[Fault]:
    """Where it is certain that there is nothing that a search could go by."""
    dataset = recipe.dataset
    if isinstance(dataset, Captcha):
        if dataset.val == 0:
            yield Fault("a search goes by validation images, and dataset.val=0 draws none", fix="dataset.val=10")
        return
    given = dataset.splits.val if isinstance(dataset, Folder) else dataset.split_column
    if dataset.fractions.val == 0 and not given:
        subject = "a search goes by validation images, and dataset.fractions.val=0 cuts none"
        yield Fault(subject, fix="dataset.fractions.val=0.15")
