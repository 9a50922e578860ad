"""What a run says on the screen: the plan before, the summary after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from thaw.network.network import StageFacts
from thaw.strategy.plan import PartPlan, PhasePlan, Plan


def print_plan(facts: Sequence[StageFacts], plan: Plan, parameters: dict[str, int], source_pull: float = 0.0) -> None:
    """A table a phase: stage, output shape, parameters, trainable, learning rate, weight decay, BatchNorm. Of a later
    phase what differs from the one before. `parameters`: `total` and `trainable`."""
    console = Console(highlight=False, width=None if Console().is_terminal else 110)
    for before, phase in zip((None, *plan.phases), plan.phases, strict=False):
        # No title of the table, which would fill it up with spaces.
        console.print(_title(phase, before), style="italic", markup=False)
        console.print(_phase_table(facts, phase, before))
    if source_pull:
        console.print(f"trained weights of the backbone are pulled towards the source's, strength {source_pull:g}")
    total, trainable = parameters["total"], parameters["trainable"]
    console.print(f"{total:,} parameters, {trainable:,} trainable ({trainable / total:.1%})\n")


def _phase_table(facts: Sequence[StageFacts], phase: PhasePlan, before: PhasePlan | None) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading, justify in (("stage", "left"), ("output", "left"), ("parameters", "right"), ("trainable", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for heading in ("learning rate", "weight decay", "BatchNorm"):
        table.add_column(heading, justify="right")
    earlier = before.parts if before else (None,) * len(phase.parts)
    for one, part, was in zip(facts, phase.parts, earlier, strict=True):
        if part != was:
            table.add_row(*_cells(one, part), style=None if part.trainable else "dim")
    return table


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


def print_summary(metrics: dict[str, Any], directory: str, notes: Sequence[str] = ()) -> None:
    """Accuracy with its interval and what is to be known of it, time, throughput, where things lie."""
    test, timing = metrics["test"], metrics["timing"]
    low, high = test["accuracy_ci95"]
    console = Console(highlight=False, soft_wrap=True)
    console.print(
        f"\ntest accuracy {test['accuracy']:.3f}   95 % interval {low:.3f} to {high:.3f}, {test['count']} images",
        style="bold",
    )
    console.print(
        f"macro accuracy {test['macro_accuracy']:.3f}   macro F1 {test['macro_f1']:.3f}   loss {test['loss']:.3f}"
    )
    for note in notes:
        console.print(f"note: {note}", style="yellow", markup=False)
    speed = f"{timing['images_per_s']:.0f} images/s" if timing["images_per_s"] else "no epoch"
    console.print(f"{timing['wall_s']:.0f} s in all, {timing['train_s']:.0f} s of epochs, {speed} in training")
    console.print(f"everything is in {directory}")
    console.print("curves: tensorboard --logdir outputs\n")
