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
    is_trainable: list[bool]


def build_phase_tables(facts: Sequence[StageFacts], plan: Plan) -> Iterator[PhaseTable]:
    """A table a phase; of a later phase what differs from the one before."""
    for previous, phase in zip((None, *plan.phases), plan.phases, strict=False):
        previous_parts = previous.parts if previous else (None,) * len(phase.parts)
        changed_stages = [
            (stage, part)
            for stage, part, previous_part in zip(facts, phase.parts, previous_parts, strict=True)
            if part != previous_part
        ]
        yield PhaseTable(
            _format_title(phase, previous),
            [_format_cells(stage, part) for stage, part in changed_stages],
            [part.trainable for _, part in changed_stages],
        )


def _format_title(phase: PhasePlan, previous: PhasePlan | None) -> str:
    span = f"epoch {phase.end}" if phase.end - phase.start == 1 else f"epochs {phase.start + 1} to {phase.end}"
    restarts = ["optimizer"] if phase.restarts_optimizer else []
    restarts += ["schedule"] if previous and phase.schedule != previous.schedule else []
    restart_text = f", {' and '.join(restarts)} from the start" if restarts and previous else ""
    return f"phase {phase.name}: {span}{restart_text}{'; as before, but' if previous else ''}"


def _format_cells(stage: StageFacts, part: PartPlan) -> list[str]:
    shape = " x ".join(map(str, stage.shape))
    rates = [f"{part.learning_rate:.3g}", f"{part.weight_decay:g}"] if part.trainable else ["-", "-"]
    trained_parameters = (
        {"all": "yes", "norms": "norms", "biases": "biases"}[part.parameters] if part.trainable else "frozen"
    )
    return [stage.name, shape, f"{stage.num_parameters:,}", trained_parameters, *rates, part.batchnorm]
