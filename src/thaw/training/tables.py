"""What a run says on the screen: the plan before, the summary after."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from thaw.network.network import StageFacts
from thaw.strategy.plan import PartPlan, PhasePlan, Plan


def totals(facts: Sequence[StageFacts], plan: Plan) -> dict[str, int]:
    trained = plan.ever_trained()
    trainable = sum(one.parameters for one in facts if one.name in trained)
    return {"total": sum(one.parameters for one in facts), "trainable": trainable}


def print_plan(facts: Sequence[StageFacts], plan: Plan) -> None:
    """A table a phase: stage, output shape, parameters, trainable, learning rate, weight decay, BatchNorm."""
    console = Console(highlight=False, width=None if Console().is_terminal else 110)
    for phase in plan.phases:
        console.print(_phase_table(facts, phase))
    sums = totals(facts, plan)
    console.print(
        f"{sums['total']:,} parameters, {sums['trainable']:,} trainable ({sums['trainable'] / sums['total']:.1%})\n"
    )


def _phase_table(facts: Sequence[StageFacts], phase: PhasePlan) -> Table:
    table = Table(
        title=f"phase {phase.name}: epochs {phase.start + 1} to {phase.end}",
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    for heading, justify in (("stage", "left"), ("output", "left"), ("parameters", "right"), ("trainable", "left")):
        table.add_column(heading, justify=justify)  # type: ignore[arg-type]
    for heading in ("learning rate", "weight decay", "BatchNorm"):
        table.add_column(heading, justify="right")
    for one, part in zip(facts, phase.parts, strict=True):
        table.add_row(*_cells(one, part), style=None if part.trainable else "dim")
    return table


def _cells(one: StageFacts, part: PartPlan) -> list[str]:
    shape = " x ".join(map(str, one.shape))
    rates = [f"{part.learning_rate:g}", f"{part.weight_decay:g}"] if part.trainable else ["-", "-"]
    return [one.name, shape, f"{one.parameters:,}", "yes" if part.trainable else "frozen", *rates, part.batchnorm]


def print_summary(metrics: dict[str, Any], directory: str) -> None:
    """Accuracy with its interval, time, throughput, where things lie."""
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
    speed = f"{timing['images_per_s']:.0f} images/s" if timing["images_per_s"] else "no epoch"
    console.print(f"{timing['wall_s']:.0f} s in all, {timing['train_s']:.0f} s of epochs, {speed} in training")
    console.print(f"everything is in {directory}")
    console.print("curves: tensorboard --logdir outputs\n")
