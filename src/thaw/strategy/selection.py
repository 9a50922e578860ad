"""Words for stages: `all`, `head`, `backbone`, `first:N`, `last:50%`, `from:STAGE`, `to:STAGE`, a stage's name, or a
pattern such as `layer*`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.schema import PhaseConfig


def select_parts(selector: str, part_names: Sequence[str]) -> list[str]:
    """The parts that `selector` means; `parts` are the stages, input to output, and `head` last.

    `first:`, `last:` (a number, or a share of the stages such as 50%), `from:` and `to:` (a stage, itself included)
    mean stages of the backbone; the head is named apart.

    Raises:
        UserFault: for a selector that means nothing here, with the list of stages.
    """
    stages = list(part_names[:-1])
    keyword, _, argument = selector.partition(":")
    if selector == "all":
        return list(part_names)
    if selector == "backbone":
        return stages
    if keyword in ("from", "to") and argument in stages:
        index = stages.index(argument)
        return stages[index:] if keyword == "from" else stages[: index + 1]
    if keyword in ("first", "last") and 1 <= (count := _parse_count(argument, len(stages))) <= len(stages):
        return stages[:count] if keyword == "first" else stages[-count:]
    matches = [name for name in part_names if fnmatchcase(name, selector)]
    if not matches:
        raise UserError("the strategy does not fit the backbone.", [build_selector_problem(selector, part_names)])
    return matches


def _parse_count(amount: str, num_stages: int) -> int:
    """How many stages `3` or `50%` are; a share is rounded down, but to one at least: the head trains beside them, so
    the upper half of nine stages is four. 0 for what is neither."""
    if amount.isdigit():
        return int(amount)
    percentage = amount.removesuffix("%")
    is_percentage = percentage.isdigit() and 1 <= int(percentage) <= 100
    return max(1, num_stages * int(percentage) // 100) if is_percentage else 0


def build_selector_problem(selector: str, part_names: Sequence[str]) -> Problem:
    valid = f"{format_names(part_names, 40)}; {_describe_selectors(len(part_names) - 1)}"
    keyword, colon, argument = selector.partition(":")
    closest = find_closest_name(argument, part_names[:-1]) if keyword in ("from", "to") else None
    fix = (
        f"{keyword}{colon}{closest}" if closest else find_closest_name(selector, [*part_names, "all", "backbone"]) or ""
    )
    return Problem(f"{selector!r} selects no stage", selector, valid, fix)


def _describe_selectors(num_stages: int) -> str:
    return f"all, backbone, first:1 .. last:{num_stages}, last:50%, from:STAGE, to:STAGE, or a pattern with *"


Value = TypeVar("Value")


@dataclass(frozen=True)
class Part:
    """A stage, or the head, as far as a plan asks: how many parameters its normalisations have, and its biases."""

    name: str
    num_norm_parameters: int
    num_bias_parameters: int

    def has_parameters(self, kind: str) -> bool:
        """Whether there is anything of the kind that a phase chose."""
        return kind == "all" or (self.num_norm_parameters if kind == "norms" else self.num_bias_parameters) > 0


def resolve_selectors(selectors: Sequence[str], parts: Sequence[Part]) -> set[str]:
    names = [part.name for part in parts]
    return {name for selector in selectors for name in select_parts(selector, names)}


def map_to_parts(values: Mapping[str, Value], parts: Sequence[Part]) -> dict[str, Value]:
    """The value of the last word that means each part."""
    return {name: value for selector, value in values.items() for name in resolve_selectors([selector], parts)}


def resolve_trained_kinds(phase: PhaseConfig, parts: Sequence[Part]) -> dict[str, str]:
    """What trains of each part once it trains. In a stage that is frozen but for its BatchNorm, the norms."""
    trained_parts, kinds_by_part, batchnorm_modes = (
        resolve_selectors([*phase.train, *phase.unfreeze], parts),
        map_to_parts(phase.parameters, parts),
        map_to_parts(phase.batchnorm, parts),
    )
    norm_only_parts = {name for name, mode in batchnorm_modes.items() if mode == "train"} - trained_parts
    trained_kinds = {name: kinds_by_part.get(name, "all") for name in trained_parts} | dict.fromkeys(
        norm_only_parts, "norms"
    )
    return {
        part.name: trained_kinds[part.name]
        for part in parts
        if part.name in trained_kinds and part.has_parameters(trained_kinds[part.name])
    }
