"""Select stages by selectors: `all`, `head`, `backbone`, `first:N`, `last:50%`, `from:STAGE`, `to:STAGE`, the name of a
stage, or a pattern such as `layer*`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.schema import PhaseConfig

MIN_STAGES = 3
MAX_STAGE_FRACTION = 0.8  # of the layers with weights, in one stage
Value = TypeVar("Value")


@dataclass(frozen=True)
class Part:
    """A stage or the head, with the numbers of parameters of its normalization layers and of its biases, and the number
    of its layers with weights."""

    name: str
    num_norm_parameters: int
    num_bias_parameters: int
    num_layers: int = 1

    def has_parameters(self, kind: str) -> bool:
        """Return whether the part has parameters of `kind`: `all`, `norms` or `biases`."""
        return kind == "all" or (self.num_norm_parameters if kind == "norms" else self.num_bias_parameters) > 0


def describe_uneven_stages(parts: Sequence[Part]) -> str:
    """Say why the stages are no measure of depth: they are fewer than three, or one has nearly all layers; else empty.

    ResNet-152 has 70 % of its layers in a stage, ConvNeXt and Swin-B have 75 %.
    """
    stages = parts[:-1]
    largest, total = max(stages, key=lambda stage: stage.num_layers), sum(stage.num_layers for stage in stages)
    if len(stages) >= MIN_STAGES and largest.num_layers <= MAX_STAGE_FRACTION * total:
        return ""
    count = f"{len(stages)} stage{'s' * (len(stages) > 1)}"
    return f"the backbone has {count}, and {largest.name} has {largest.num_layers} of its {total} layers"


def select_parts(selector: str, part_names: Sequence[str]) -> list[str]:
    """Return the parts that `selector` selects; `part_names` are the stages from input to output, then `head`.

    `first:` and `last:` (a number or a percentage of the stages), `from:` and `to:` (a stage, inclusive) select stages
    of the backbone only, never the head.

    Raises:
        UserError: if `selector` selects nothing; it lists the stages.
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
    """Return the number of stages that `3` or `50%` means, or 0 if `amount` is invalid.

    A percentage is rounded down, but to at least 1: the head trains too, so half of nine stages is four.
    """
    if amount.isdigit():
        return int(amount)
    percentage = amount.removesuffix("%")
    is_percentage = percentage.isdigit() and 1 <= int(percentage) <= 100
    return max(1, num_stages * int(percentage) // 100) if is_percentage else 0


def build_selector_problem(selector: str, part_names: Sequence[str]) -> Problem:
    """Build the problem of a selector that selects nothing, with the closest valid selector as its fix."""
    valid = f"{format_names(part_names, 40)}; {_describe_selectors(len(part_names) - 1)}"
    keyword, colon, argument = selector.partition(":")
    closest = find_closest_name(argument, part_names[:-1]) if keyword in ("from", "to") else None
    fix = (
        f"{keyword}{colon}{closest}" if closest else find_closest_name(selector, [*part_names, "all", "backbone"]) or ""
    )
    return Problem(f"{selector!r} selects no stage", selector, valid, fix)


def _describe_selectors(num_stages: int) -> str:
    return f"all, backbone, first:1 .. last:{num_stages}, last:50%, from:STAGE, to:STAGE, or a pattern with *"


def resolve_selectors(selectors: Sequence[str], parts: Sequence[Part]) -> set[str]:
    """Return the names of the parts that any of `selectors` selects."""
    names = [part.name for part in parts]
    return {name for selector in selectors for name in select_parts(selector, names)}


def map_to_parts(values: Mapping[str, Value], parts: Sequence[Part]) -> dict[str, Value]:
    """Map each selected part to the value of the last selector that selects it."""
    return {name: value for selector, value in values.items() for name in resolve_selectors([selector], parts)}


def resolve_trained_kinds(phase: PhaseConfig, parts: Sequence[Part]) -> dict[str, str]:
    """Map each part that trains in `phase` to the kind of its parameters that train.

    In a frozen stage whose BatchNorm trains, that is `norms`.
    """
    trained_parts = resolve_selectors([*phase.train, *phase.unfreeze], parts)
    kinds_by_part, batchnorm_modes = map_to_parts(phase.parameters, parts), map_to_parts(phase.batchnorm, parts)
    norm_only_parts = {name for name, mode in batchnorm_modes.items() if mode == "train"} - trained_parts
    trained_kinds = {name: kinds_by_part.get(name, "all") for name in trained_parts}
    trained_kinds |= dict.fromkeys(norm_only_parts, "norms")
    return {
        part.name: trained_kinds[part.name]
        for part in parts
        if part.name in trained_kinds and part.has_parameters(trained_kinds[part.name])
    }
