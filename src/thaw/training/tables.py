"""What a run says on the screen: the plan before, the summary after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from thaw.analysis.plan_table import HEADINGS, PhaseTable, build_phase_tables
from thaw.network.network import StageFacts
from thaw.strategy.plan import Plan


def print_plan(facts: Sequence[StageFacts], plan: Plan, parameters: dict[str, int], l2_sp: float = 0.0) -> None:
    """A table a phase: stage, output shape, parameters, trainable, learning rate, weight decay, BatchNorm. Of a later
    phase what differs from the one before. `parameters`: `total` and `trainable`."""
    console = Console(highlight=False, width=None if Console().is_terminal else 110)
    for phase in build_phase_tables(facts, plan):
        console.print(phase.title, style="italic", markup=False)  # no title of the table, which would fill it up
        console.print(_build_table(phase))
    if l2_sp:
        console.print(f"trained weights of the backbone are pulled towards the source's, strength {l2_sp:g}")
    total, trainable = parameters["total"], parameters["trainable"]
    console.print(f"{total:,} parameters, {trainable:,} trainable ({trainable / total:.1%})\n")


def _build_table(phase: PhaseTable) -> Table:
    table = Table(box=None, pad_edge=False)
    for index, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if index in (0, 1, 3) else "right")
    for cells, is_trainable in zip(phase.rows, phase.is_trainable, strict=True):
        table.add_row(*cells, style=None if is_trainable else "dim")
    return table


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
    console.print(f"curves: thaw dashboard {directory}\n")
