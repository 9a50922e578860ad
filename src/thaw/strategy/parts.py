"""Stages and the head as a strategy sees them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from thaw.config.schema import PhaseConfig
from thaw.strategy.selection import select_parts

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
