"""Words for stages: `all`, `head`, `backbone`, `first:N`, `last:N`, a stage's name, or a pattern such as `layer*`."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from thaw.config.faults import Fault, UserFault, listing, nearest


def selected(selector: str, parts: Sequence[str]) -> list[str]:
    """The parts that `selector` means; `parts` are the stages, input to output, and `head` last.

    `first:N` and `last:N` count stages of the backbone; the head is named apart.

    Raises:
        UserFault: for a selector that means nothing here, with the list of stages.
    """
    stages = list(parts[:-1])
    word, _, number = selector.partition(":")
    if selector == "all":
        return list(parts)
    if selector == "backbone":
        return stages
    if word in ("first", "last") and number.isdigit() and 1 <= int(number) <= len(stages):
        return stages[: int(number)] if word == "first" else stages[-int(number) :]
    found = [name for name in parts if fnmatchcase(name, selector)]
    if not found:
        raise _means_nothing(selector, parts)
    return found


def _means_nothing(selector: str, parts: Sequence[str]) -> UserFault:
    valid = f"{listing(parts, 40)}; all, backbone, first:1 .. last:{len(parts) - 1}, or a pattern with *"
    closest = nearest(selector, [*parts, "all", "backbone"])
    fault = Fault(f"{selector!r} selects no stage", selector, valid, closest or "")
    return UserFault("the strategy does not fit the backbone.", [fault])
