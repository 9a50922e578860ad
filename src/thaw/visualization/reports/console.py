"""Write plan, data set and result of a run to a reporter, as text."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from thaw.config.errors import format_names
from thaw.config.printable import escape_line
from thaw.data.leaks import LEAK_DESCRIPTIONS, WITHOUT_LEAKS
from thaw.data.problems import MAX_NAMES_ON_SCREEN, DatasetProblem
from thaw.data.samples import Samples
from thaw.models.network import StageFacts
from thaw.runs.run import Run
from thaw.strategy.plan import PartPlan, PhasePlan, Plan
from thaw.system.portable import shorten_path
from thaw.system.reporter import Reporter
from thaw.system.tables import measure_width, render_text_table, shorten_middle

HEADINGS = ("stage", "output", "parameters", "trainable", "learning rate", "weight decay", "BatchNorm")
NARROW_HEADINGS = ("stage", "output", "parameters", "trainable", "learning\nrate", "weight\ndecay", "Batch\nNorm")
LEFT_ALIGNED_COLUMNS = (0, 1, 3)
AVERAGES = {"macro_accuracy": "macro accuracy", "macro_f1": "macro F1", "auroc": "AUROC", "loss": "loss"}
MIN_NAME_WIDTH = 8  # cells of a stage's name that is shortened


def print_plan(
    reporter: Reporter, facts: Sequence[StageFacts], plan: Plan, parameters: Mapping[str, int], l2_sp: float = 0.0
) -> None:
    """Write a table for each phase, then the number of `total` and `trainable` parameters.

    The table of a later phase has only the stages that differ from the phase before.
    """
    for phase in build_phase_tables(facts, plan):
        reporter.write(phase.title, "italic")
        if not phase.rows:
            continue
        header_lines, lines = _render_table(phase, reporter.width)
        reporter.write("\n".join(header_lines), "bold")
        for line, is_trainable in zip(lines, phase.is_trainable, strict=True):
            reporter.write(line, "" if is_trainable else "dim")
    if l2_sp:
        reporter.write(f"L2-SP pulls the trained weights of the backbone to the pretrained ones, strength {l2_sp:g}")
    total, trainable = parameters["total"], parameters["trainable"]
    reporter.write(f"{total:,} parameters, {trainable:,} trainable ({trainable / total:.1%})\n")


def _render_table(phase: PhaseTable, width: int) -> tuple[list[str], list[str]]:
    """Return the lines of the header and a line for each row, in `width` cells: headings of two words take two lines,
    and the middle of long names of stages is left out."""
    rows = phase.rows
    headings = HEADINGS if _measure_table(HEADINGS, rows) <= width else NARROW_HEADINGS
    excess = max(0, _measure_table(headings, rows) - width)
    name_width = max(MIN_NAME_WIDTH, max(measure_width(row[0]) for row in rows) - excess)
    shortened_rows = [[shorten_middle(row[0], name_width), *row[1:]] for row in rows]
    header_rows = list(zip_longest(*(heading.split("\n") for heading in headings), fillvalue=""))
    lines = render_text_table(header_rows[0], [*header_rows[1:], *shortened_rows], LEFT_ALIGNED_COLUMNS).splitlines()
    return lines[: len(header_rows)], lines[len(header_rows) :]


def _measure_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    widths = [
        max(map(measure_width, [*heading.split("\n"), *column]))
        for heading, column in zip(headings, zip(*rows, strict=True), strict=True)
    ]
    return sum(widths) + 2 * (len(widths) - 1)


def print_summary(reporter: Reporter, run: Run, metrics: Mapping[str, Any], example_image: Path) -> None:
    """Write the path of the report, test accuracy with its interval, the recipe's notes, times, and what to do next:
    commands for the run and `example_image`."""
    test, timing = metrics["test"], metrics["timing"]
    low, high = test["accuracy_ci95"]
    if run.report_path.is_file():  # not if it could not be drawn, which is a warning
        reporter.write(f"\nreport: {shorten_path(run.report_path)}", "bold")
    groups = f" of {test['groups']} groups, which the interval resamples" if "groups" in test else ""
    interval = f"95 % interval {low:.3f} to {high:.3f}, {test['count']} images{groups}"
    reporter.write(f"test accuracy {test['accuracy']:.3f}   {interval}", "bold")
    if leaks := describe_leaks(get_leaks(run.record), metrics):
        reporter.write(leaks, "yellow")
    averages = [f"{label} {test[key]:.3f}" for key, label in AVERAGES.items() if key in test]
    reporter.write("   ".join(averages))
    for note in run.recipe.notes:
        reporter.write(escape_line(f"note: {note}"), "yellow")
    speed = f"{timing['images_per_s']:.0f} images/s" if timing["images_per_s"] else "no epoch"
    reporter.write(f"{timing['wall_s']:.0f} s in all, {timing['train_s']:.0f} s of epochs, {speed} in training")
    reporter.write(_format_next_commands(run.directory, example_image))


def get_leaks(record: Mapping[str, Any]) -> Mapping[str, int]:
    """Return the number of test images that leak, by kind, from the record of a run; runs of version 0.2 have none."""
    return (record.get("data") or {}).get("leaks") or {}


def describe_leaks(leaks: Mapping[str, int], metrics: Mapping[str, Any]) -> str:
    """Return how many test images leak, and the accuracy without them; empty if none does. `leaks` are their numbers by
    kind, `metrics` those of a metrics.json."""
    if not leaks:
        return ""
    kinds = ", ".join(f"{count:,} with {LEAK_DESCRIPTIONS.get(kind, kind)}" for kind, count in leaks.items())
    total, clean = metrics["test"], metrics.get(WITHOUT_LEAKS)
    if clean is None:
        return f"All {total['count']:,} test images leak ({kinds}): the test accuracy says nothing about new images."
    num_leaks = total["count"] - clean["count"]
    low, high = clean["accuracy_ci95"]
    return (
        f"{num_leaks:,} of {total['count']:,} test images leak: {kinds}. Without them the accuracy is "
        f"{clean['accuracy']:.3f} instead of {total['accuracy']:.3f} (95 % interval {low:.3f} to {high:.3f}, "
        f"{clean['count']:,} images)."
    )


def _format_next_commands(directory: Path, example_image: Path) -> str:
    run, image = (
        shlex.quote(shorten_path(path) if path.absolute().is_relative_to(Path.cwd()) else str(path))
        for path in (directory, example_image)
    )
    return f"next:\n  thaw evaluate {run}\n  thaw explain {run} {image}\n  thaw dashboard {run}\n"


def print_dataset_summary(reporter: Reporter, name: str, samples: Samples, skipped: Mapping[str, str]) -> None:
    """Write the number of images per split, how they were read, and for each reason the files that are not used.

    `skipped` maps the path of each image that cannot be decoded to the reason.
    """
    counts = ", ".join(f"{count} {split}" for split, count in samples.count_per_split().items())
    reporter.write(f"{name}: {counts} images of {len(samples.classes)} classes, fingerprint {samples.fingerprint}")
    num_unused = len(samples.samples) - sum(samples.count_per_split().values())
    if num_unused:
        reporter.write(f"unused train images: {num_unused} (data.train_per_class)")
    for note in samples.notes:
        reporter.write(escape_line(note))
    for reason, names in samples.group_ignored_files().items():
        reporter.write(escape_line(f"ignored, {reason}: {len(names)} ({format_names(names, MAX_NAMES_ON_SCREEN)})"))
    if skipped:
        text = format_names([f"{path}: {reason}" for path, reason in skipped.items()], MAX_NAMES_ON_SCREEN)
        reporter.write(f"skipped, cannot be decoded: {len(skipped)} ({text})")
    for warning in samples.warnings:
        reporter.warn(escape_line(warning))


def print_problems(reporter: Reporter, problems: Iterable[DatasetProblem]) -> None:
    """Write a warning for each problem of a data set."""
    for problem in problems:
        reporter.warn(escape_line(str(problem)))


@dataclass(frozen=True)
class PhaseTable:
    """The table of a phase. Each of `rows` has a cell for each of HEADINGS; `is_trainable` has an entry per row."""

    title: str
    rows: list[list[str]]
    is_trainable: list[bool]


def build_phase_tables(facts: Sequence[StageFacts], plan: Plan) -> Iterator[PhaseTable]:
    """Build a table for each phase; that of a later phase has only the stages that differ from the phase before."""
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
    restart_text = f", {' and '.join(restarts)} restarted" if restarts and previous else ""
    return f"phase {phase.name}: {span}{restart_text}{'; as before, except' if previous else ''}"


def _format_cells(stage: StageFacts, part: PartPlan) -> list[str]:
    shape = " x ".join(map(str, stage.shape))
    rates = [f"{part.learning_rate:.3g}", f"{part.weight_decay:g}"] if part.trainable else ["-", "-"]
    trained_parameters = (
        {"all": "yes", "norms": "norms", "biases": "biases"}[part.parameters] if part.trainable else "frozen"
    )
    return [stage.name, shape, f"{stage.num_parameters:,}", trained_parameters, *rates, part.batchnorm]
