"""What a run says on the screen: the plan before, the summary after."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from thaw.config.errors import format_names
from thaw.data.problems import MAX_NAMES_ON_SCREEN, DatasetProblem
from thaw.data.samples import Samples
from thaw.models.network import StageFacts
from thaw.strategy.plan import PartPlan, PhasePlan, Plan


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


def print_dataset_summary(name: str, samples: Samples, skipped: Mapping[str, str]) -> None:
    """Counts, and what is not among the samples: `skipped` is path -> why it cannot be decoded."""
    counts = ", ".join(f"{count} {split}" for split, count in samples.count_per_split().items())
    print(f"{name}: {counts} images of {len(samples.classes)} classes, fingerprint {samples.fingerprint}")
    unused = len(samples.samples) - sum(samples.count_per_split().values())
    if unused:
        print(f"train images left aside: {unused} (data.train_per_class)")
    if samples.ignored_files:
        text = format_names(samples.ignored_files, MAX_NAMES_ON_SCREEN)
        print(f"passed over, as they are no image of a class: {len(samples.ignored_files)} ({text})")
    if skipped:
        text = format_names([f"{path}: {reason}" for path, reason in skipped.items()], MAX_NAMES_ON_SCREEN)
        print(f"left out, as they cannot be decoded: {len(skipped)} ({text})")


def print_problems(problems: Iterable[DatasetProblem]) -> None:
    for problem in problems:
        print(f"warning: {problem}")


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
