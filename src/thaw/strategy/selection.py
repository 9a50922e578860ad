"""Words for stages: `all`, `head`, `backbone`, `first:N`, `last:50%`, `from:STAGE`, `to:STAGE`, a stage's name, or a
pattern such as `layer*`."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from thaw.config.faults import Fault, UserFault, listing, nearest


def selected(selector: str, parts: Sequence[str]) -> list[str]:
    """The parts that `selector` means; `parts` are the stages, input to output, and `head` last.

    `first:`, `last:` (a number, or a share of the stages such as 50%), `from:` and `to:` (a stage, itself included)
    mean stages of the backbone; the head is named apart.

    Raises:
        UserFault: for a selector that means nothing here, with the list of stages.
    """
    stages = list(parts[:-1])
    word, _, amount = selector.partition(":")
    if selector == "all":
        return list(parts)
    if selector == "backbone":
        return stages
    if word in ("from", "to") and amount in stages:
        place = stages.index(amount)
        return stages[place:] if word == "from" else stages[: place + 1]
    if word in ("first", "last") and 1 <= (count := _count(amount, len(stages))) <= len(stages):
        return stages[:count] if word == "first" else stages[-count:]
    found = [name for name in parts if fnmatchcase(name, selector)]
    if not found:
        raise UserFault("the strategy does not fit the backbone.", [means_nothing(selector, parts)])
    return found


def _count(amount: str, stages: int) -> int:
    """How many stages `3` or `50%` are; a share is rounded down, but to one at least: the head trains beside them, so
    the upper half of nine stages is four. 0 for what is neither."""
    if amount.isdigit():
        return int(amount)
    share = amount.removesuffix("%")
    is_share = share.isdigit() and 1 <= int(share) <= 100
    return max(1, stages * int(share) // 100) if is_share else 0


def means_nothing(selector: str, parts: Sequence[str]) -> Fault:
    valid = f"{listing(parts, 40)}; {_words(len(parts) - 1)}"
    word, colon, rest = selector.partition(":")
    closest = nearest(rest, parts[:-1]) if word in ("from", "to") else None
    fix = f"{word}{colon}{closest}" if closest else nearest(selector, [*parts, "all", "backbone"]) or ""
    return Fault(f"{selector!r} selects no stage", selector, valid, fix)


def _words(stages: int) -> str:
    return f"all, backbone, first:1 .. last:{stages}, last:50%, from:STAGE, to:STAGE, or a pattern with *"
