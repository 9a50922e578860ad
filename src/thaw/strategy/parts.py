"""Stages and the head as a strategy sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from thaw.config.schema import Phase
from thaw.strategy.selection import selected

Value = TypeVar("Value")


@dataclass(frozen=True)
class Part:
    """A stage, or the head, as far as a plan asks: how many parameters its normalisations have, and its biases."""

    name: str
    norms: int
    biases: int

    def has(self, kind: str) -> bool:
        """Whether there is anything of the kind that a phase chose."""
        return kind == "all" or (self.norms if kind == "norms" else self.biases) > 0


def meant(selectors: Sequence[str], parts: Sequence[Part]) -> set[str]:
    names = [part.name for part in parts]
    return {name for selector in selectors for name in selected(selector, names)}


def by_part(values: Mapping[str, Value], parts: Sequence[Part]) -> dict[str, Value]:
    """The value of the last word that means each part."""
    return {name: value for selector, value in values.items() for name in meant([selector], parts)}


def kinds(phase: Phase, parts: Sequence[Part]) -> dict[str, str]:
    """What trains of each part once it trains. In a stage that is frozen but for its BatchNorm, the norms."""
    trained, own, batchnorms = (
        meant([*phase.train, *phase.unfreeze], parts),
        by_part(phase.parameters, parts),
        by_part(phase.batchnorm, parts),
    )
    only_norms = {name for name, mode in batchnorms.items() if mode == "train"} - trained
    found = {name: own.get(name, "all") for name in trained} | dict.fromkeys(only_norms, "norms")
    return {part.name: found[part.name] for part in parts if part.name in found and part.has(found[part.name])}
