"""A plan as tables of text: what a run prints before it trains, and shows on its page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from thaw.network.network import StageFacts
from thaw.strategy.plan import PartPlan, PhasePlan, Plan

HEADINGS = ("stage", "output", "parameters", "trainable", "learning rate", "weight decay", "BatchNorm")


@dataclass(frozen=True)
class PhaseTable:
    """`rows` have a cell for each of HEADINGS; of `trains`, one for each row, says whether that stage does."""

    title: str
    rows: list[list[str]]
    trains: list[bool]


def phase_tables(facts: Sequence[StageFacts], plan: Plan) -> Iterator[PhaseTable]:
    """A table a phase; of a later phase what differs from the one before."""
    for before, phase in zip((None, *plan.phases), plan.phases, strict=False):
        earlier = before.parts if before else (None,) * len(phase.parts)
        shown = [(one, part) for one, part, was in zip(facts, phase.parts, earlier, strict=True) if part != was]
        yield PhaseTable(
            _title(phase, before), [_cells(one, part) for one, part in shown], [part.trainable for _, part in shown]
        )


def _title(phase: PhasePlan, before: PhasePlan | None) -> str:
    span = f"epoch {phase.end}" if phase.end - phase.start == 1 else f"epochs {phase.start + 1} to {phase.end}"
    restarts = ["optimizer"] if phase.restarts_optimizer else []
    restarts += ["schedule"] if before and phase.schedule != before.schedule else []
    again = f", {' and '.join(restarts)} from the start" if restarts and before else ""
    return f"phase {phase.name}: {span}{again}{'; as before, but' if before else ''}"


def _cells(one: StageFacts, part: PartPlan) -> list[str]:
    shape = " x ".join(map(str, one.shape))
    rates = [f"{part.learning_rate:.3g}", f"{part.weight_decay:g}"] if part.trainable else ["-", "-"]
    trains = {"all": "yes", "norms": "norms", "biases": "biases"}[part.parameters] if part.trainable else "frozen"
    return [one.name, shape, f"{one.parameters:,}", trains, *rates, part.batchnorm]
