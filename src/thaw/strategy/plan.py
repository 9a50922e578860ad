"""What trains when: a pure function of the recipe's strategy, the stages and the epoch.

Because the plan is data, resuming needs no memory of it: the epoch's number says all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thaw.config.faults import UserFault
from thaw.config.schema import Phase, Strategy
from thaw.strategy.misfits import misfits
from thaw.strategy.parts import Part, by_part, kinds, meant

Spans = dict[str, tuple[int, int]]


@dataclass(frozen=True)
class PartPlan:
    """One stage, or the head, in one phase. `learning_rate` is before the schedule; 0 where frozen. `parameters` are
    those that train: `all`, `norms`, `biases`. `batchnorm` is `train`, `statistics` or `eval`, as in a recipe."""

    name: str
    trainable: bool
    learning_rate: float
    weight_decay: float
    batchnorm: str
    parameters: str = "all"


@dataclass(frozen=True)
class PhasePlan:
    """Epochs `start` to `end` - 1, counted from 0. The schedule that it is in runs over the epochs `schedule`."""

    name: str
    start: int
    end: int
    parts: tuple[PartPlan, ...]
    schedule: tuple[int, int]
    restarts_optimizer: bool = False

    @property
    def frontier(self) -> int:
        """How many leading stages are frozen; the head is no stage."""
        trainable = [part.trainable for part in self.parts[:-1]]
        return trainable.index(True) if True in trainable else len(trainable)

    @property
    def moving(self) -> tuple[PartPlan, ...]:
        """The parts that do not run in evaluation mode throughout."""
        return tuple(part for part in self.parts if part.trainable or part.batchnorm != "eval")

    @property
    def still_stages(self) -> int:
        """How many leading stages give the same output for an image in every epoch: frozen, and with BatchNorm that
        does not follow the batches."""
        still = [not part.trainable and part.batchnorm == "eval" for part in self.parts[:-1]]
        return still.index(False) if False in still else len(still)


@dataclass(frozen=True)
class Plan:
    phases: tuple[PhasePlan, ...]

    def at(self, epoch: int) -> PhasePlan:
        """The phase of `epoch`; the last one for any later epoch."""
        return next((phase for phase in self.phases if epoch < phase.end), self.phases[-1])

    def untouched(self, depth: int, until: PhasePlan) -> bool:
        """Whether the leading `depth` stages are still the source's when the phase `until` begins."""
        return all(phase.still_stages >= depth for phase in self.phases if phase.start < until.start)

    def plain(self) -> list[dict[str, Any]]:
        phases = [dataclasses.asdict(phase) for phase in self.phases]
        return [{**one, "parts": list(one["parts"]), "schedule": list(one["schedule"])} for one in phases]


def plan_of_plain(plain: Sequence[Mapping[str, Any]]) -> Plan:
    """The plan that `Plan.plain` gave, as `run.json` holds it."""
    phases = [
        PhasePlan(
            **{**one, "parts": tuple(PartPlan(**part) for part in one["parts"]), "schedule": tuple(one["schedule"])}
        )
        for one in plain
    ]
    return Plan(tuple(phases))


def planned(
    strategy: Strategy,
    parts: Sequence[Part],
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    schedule_epochs: float = 0.0,
) -> Plan:
    """The plan of `epochs` epochs over `parts`: the stages, input to output, and `head` last.

    A part's rate is `learning_rate` times the multiplier of the phase's last `learning_rate` entry that means it. A
    stage that is pulled towards the source weights does not decay towards zero. `schedule_epochs`: what the schedule
    needs for its warm-up and milestones.

    Raises:
        UserFault: with all words that mean no stage here, phases that train nothing, and phases and schedules that do
            not fit into the epochs.
    """
    spans = _spans(strategy.phases, epochs)
    schedules = _schedules(strategy.phases, spans, epochs)
    faults = list(misfits(strategy, parts, spans, schedules, epochs, schedule_epochs))
    if faults:
        raise UserFault("the strategy does not fit the backbone, or the epochs.", faults)
    decays = {part.name: 0.0 if strategy.source_pull else weight_decay for part in parts[:-1]} | {
        parts[-1].name: weight_decay
    }
    phases: list[PhasePlan] = []
    for name, phase in strategy.phases.items():
        for step in _steps(name, phase, parts, *spans[name]):
            planned_parts = tuple(
                _part(phase, step.frozen, parts, place, learning_rate, decays) for place in range(len(parts))
            )
            restarts = "optimizer" in phase.restart and step.start == spans[name][0]
            phases.append(PhasePlan(step.name, step.start, step.end, planned_parts, schedules[name], restarts))
    return Plan(tuple(phases))


@dataclass(frozen=True)
class _Step:
    """`frozen`: parts that are still to join."""

    name: str
    start: int
    end: int
    frozen: set[str]


def _steps(name: str, phase: Phase, parts: Sequence[Part], start: int, end: int) -> Iterator[_Step]:
    """One step, or those in which the stages of `unfreeze` join: with fewer epochs than stages, several an epoch."""
    waiting = meant(phase.unfreeze, parts) - meant(phase.train, parts)
    joining = [part.name for part in reversed(parts) if part.name in waiting]
    if not joining:
        yield _Step(name, start, end, set())
        return
    counts = [-(-(epoch + 1) * len(joining) // (end - start)) for epoch in range(end - start)]
    for count in dict.fromkeys(counts):
        first = start + counts.index(count)
        yield _Step(f"{name}-{joining[count - 1]}", first, first + counts.count(count), set(joining[count:]))


def _part(
    phase: Phase, frozen: set[str], parts: Sequence[Part], place: int, learning_rate: float, decays: Mapping[str, float]
) -> PartPlan:
    name, kind = parts[place].name, kinds(phase, parts).get(parts[place].name)
    rate = 0.0
    if kind and name not in frozen:
        away_from_head = len(parts) - 1 - place
        rate = learning_rate * by_part(phase.learning_rate, parts)[name] * phase.layer_decay**away_from_head
    decay = decays[name] * by_part(phase.weight_decay, parts).get(name, 1.0) if rate else 0.0
    batchnorm = by_part(phase.batchnorm, parts).get(name, "train" if rate else "eval")
    return PartPlan(name, rate > 0, rate, decay, batchnorm, kind if kind and rate else "all")


def _spans(phases: Mapping[str, Phase], epochs: int) -> Spans:
    """Start and end of each phase; the phase with neither epochs nor share, else the last, takes what is left."""
    lengths = {name: phase.epochs or max(1, round((phase.share or 0) * epochs)) for name, phase in phases.items()}
    open_ended = [name for name, phase in phases.items() if not phase.epochs and not phase.share]
    filler = open_ended[0] if open_ended else list(phases)[-1]
    lengths[filler] = epochs - sum(length for name, length in lengths.items() if name != filler)
    spans, start = {}, 0
    for name, length in lengths.items():
        spans[name] = (start, start + length)
        start += length
    return spans


def _schedules(phases: Mapping[str, Phase], spans: Spans, epochs: int) -> Spans:
    """The epochs over which the schedule of each phase runs: from a restart to the next."""
    begins = [spans[name][0] for name, phase in phases.items() if "scheduler" in phase.restart]
    edges = sorted({0, *begins, epochs})
    return {
        name: (
            max((edge for edge in edges if edge <= start), default=0),
            min((edge for edge in edges if edge > start), default=epochs),
        )
        for name, (start, _) in spans.items()
    }
