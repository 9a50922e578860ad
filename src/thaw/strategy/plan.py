"""What trains when: a pure function of the recipe's strategy, the stages and the epoch.

Because the plan is data, resuming needs no memory of it: the epoch's number says all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Phase, Strategy
from thaw.strategy.selection import selected


@dataclass(frozen=True)
class PartPlan:
    """One stage, or the head, in one phase. `learning_rate` is before the schedule; 0 where frozen. `batchnorm` is
    `train` (batch statistics, running ones updated) or `eval` (running statistics, as they are)."""

    name: str
    trainable: bool
    learning_rate: float
    weight_decay: float
    batchnorm: str


@dataclass(frozen=True)
class PhasePlan:
    """Epochs `start` to `end` - 1, counted from 0."""

    name: str
    start: int
    end: int
    parts: tuple[PartPlan, ...]

    @property
    def frontier(self) -> int:
        """How many leading stages are frozen; the head is no stage."""
        trainable = [part.trainable for part in self.parts[:-1]]
        return trainable.index(True) if True in trainable else len(trainable)


@dataclass(frozen=True)
class Plan:
    phases: tuple[PhasePlan, ...]

    def at(self, epoch: int) -> PhasePlan:
        """The phase of `epoch`; the last one for any later epoch."""
        return next((phase for phase in self.phases if epoch < phase.end), self.phases[-1])

    def ever_trained(self) -> set[str]:
        return {part.name for phase in self.phases for part in phase.parts if part.trainable}

    def plain(self) -> list[dict[str, Any]]:
        phases = [dataclasses.asdict(phase) for phase in self.phases]
        return [{**phase, "parts": list(phase["parts"])} for phase in phases]


def planned(strategy: Strategy, parts: Sequence[str], epochs: int, learning_rate: float, weight_decay: float) -> Plan:
    """The plan of `epochs` epochs over `parts`: the stages, input to output, and `head` last.

    A part's rate is `learning_rate` times the multiplier of the phase's last `learning_rate` entry that means it.

    Raises:
        UserFault: for words that mean no stage here, and phases that train nothing.
    """
    spans = _spans(strategy.phases, epochs)
    phases = (
        PhasePlan(name, *spans[name], _parts(name, phase, parts, learning_rate, weight_decay))
        for name, phase in strategy.phases.items()
    )
    return Plan(tuple(phases))


def _parts(name: str, phase: Phase, parts: Sequence[str], rate: float, decay: float) -> tuple[PartPlan, ...]:
    trained = {part for selector in phase.train for part in selected(selector, parts)}
    multipliers = _multipliers(phase.learning_rate, parts)
    unrated = [part for part in parts if part in trained and part not in multipliers]
    if unrated:
        fix = f"strategy.phases.{name}.learning_rate.all=1.0"
        raise UserFault(
            "the strategy leaves a gap.",
            [Fault(f"phase {name} trains {unrated[0]} and gives it no learning rate", fix=fix)],
        )
    rates = {part: rate * multipliers[part] if part in trained else 0.0 for part in parts}
    if not any(rates.values()):
        raise UserFault("the strategy trains nothing.", [Fault(f"phase {name}: all learning rates are 0")])
    return tuple(_part(part, rates[part], decay) for part in parts)


def _part(name: str, rate: float, decay: float) -> PartPlan:
    trainable = rate > 0
    return PartPlan(name, trainable, rate, decay if trainable else 0.0, "train" if trainable else "eval")


def _multipliers(rates: Mapping[str, float], parts: Sequence[str]) -> dict[str, float]:
    return {part: rate for selector, rate in rates.items() for part in selected(selector, parts)}


def _spans(phases: Mapping[str, Phase], epochs: int) -> dict[str, tuple[int, int]]:
    """Start and end of each phase; the phase with neither epochs nor share, else the last, takes what is left."""
    lengths = {name: phase.epochs or max(1, round((phase.share or 0) * epochs)) for name, phase in phases.items()}
    open_ended = [name for name, phase in phases.items() if not phase.epochs and not phase.share]
    filler = open_ended[0] if open_ended else list(phases)[-1]
    lengths[filler] = epochs - sum(length for name, length in lengths.items() if name != filler)
    if lengths[filler] < 1:
        fix = f"trainer.epochs={epochs + 1 - lengths[filler]}"
        raise UserFault(
            "the phases exceed the epochs.", [Fault(f"phase {filler} has no epoch left of {epochs}", fix=fix)]
        )
    spans, start = {}, 0
    for name, length in lengths.items():
        spans[name] = (start, start + length)
        start += length
    return spans
