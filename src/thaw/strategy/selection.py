"""Words for stages: `all`, `head`, `backbone`, `first:N`, `last:50%`, `from:STAGE`, `to:STAGE`, a stage's name, or a
pattern such as `layer*`."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from thaw.config.faults import Problem, UserError, find_closest_name, format_names


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
