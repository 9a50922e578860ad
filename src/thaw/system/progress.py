"""Progress of long work: live lines on a terminal, and a line now and then in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TextIO

from thaw.config.printable import escape_line, escape_text
from thaw.system.tables import measure_width, shorten_middle
from thaw.system.terminal import build_console, can_redraw

if TYPE_CHECKING:
    from rich.console import RenderableType

REFRESHES_PER_S = 4
MIN_LOG_INTERVAL_S = 30.0
LOG_INTERVAL_FRACTION = 0.1  # of the time so far: ten hours have fewer than a hundred lines
MIN_BAR_WIDTH, MAX_BAR_WIDTH, MAX_DESCRIPTION_WIDTH = 8, 30, 30  # cells
COLUMN_GAP = 2
MIB = 2**20


@dataclass
class ProgressTask:
    """Counts the steps of some work; calling it adds some.

    Attributes:
        total: number of steps; 0 if it is unknown.
        unit: what a step is: "images", "B" for bytes, "jobs".
        initial: steps that were done before; they say nothing about the speed.
        detail: what the work is at, shown instead of description and count.
        main_part: the work that makes up most of the current step, which so counts by fractions.
        on_advance: called after each call, if there is one.
    """

    description: str
    total: int
    unit: str = "images"
    initial: int = 0
    detail: str = ""
    main_part: ProgressTask | None = None
    on_advance: Callable[[ProgressTask], None] | None = None
    completed: int = field(init=False)
    start_time: float = field(init=False)

    def __post_init__(self) -> None:
        self.completed, self.start_time = self.initial, time.monotonic()

    def __call__(self, steps: int = 1, detail: str = "") -> None:
        """Add `steps`, and replace the detail if there is a new one."""
        self.completed += steps
        self.detail = detail or self.detail
        if steps:
            self.main_part = None  # the next step has its own
        if self.on_advance:
            self.on_advance(self)

    @property
    def num_done(self) -> float:
        """The number of steps, with the fraction of the current one."""
        return self.completed + (self.main_part.fraction if self.main_part else 0.0)

    @property
    def fraction(self) -> float:
        """What is done, in 0..1; 0 if the total is unknown."""
        return min(1.0, self.num_done / self.total) if self.total else 0.0

    @property
    def speed(self) -> float:
        """Steps a second since the start."""
        return (self.num_done - self.initial) / max(time.monotonic() - self.start_time, 1e-9)

    def format_description(self) -> str:
        """Return the description in one short line."""
        return shorten_middle(escape_line(self.description), MAX_DESCRIPTION_WIDTH)

    def format_state(self) -> str:
        """Return the detail, or the count."""
        if self.detail:
            return escape_line(self.detail)
        if self.unit == "B":
            return "/".join(f"{size / MIB:,.1f}" for size in (self.completed, self.total) if size) + " MiB"
        return "/".join(f"{count:,}" for count in (self.completed, self.total)[: 2 if self.total else 1])

    def format_fraction(self) -> str:
        """Return percent; empty if the total is unknown."""
        return f"{int(100 * self.fraction)}%" if self.total else ""

    def format_speed(self) -> str:
        """Return the speed; empty if nothing is done, and for jobs, of which one takes minutes."""
        if self.speed <= 0 or self.unit == "jobs":
            return ""
        speed, unit = (self.speed / MIB, "MiB") if self.unit == "B" else (self.speed, self.unit)
        return f"{speed:,.0f} {unit}/s" if speed >= 10 else f"{speed:.1f} {unit}/s"

    def format_remaining(self) -> str:
        """Return the remaining time; empty if nothing is done or the total is unknown."""
        if self.speed <= 0 or not self.total:
            return ""
        minutes, seconds = divmod(round(max(0.0, self.total - self.num_done) / self.speed), 60)
        hours, minutes = divmod(minutes, 60)
        return f"{hours}:{minutes:02}:{seconds:02} left" if hours else f"{minutes}:{seconds:02} left"


class Display:
    """Shows tasks that are open, the outermost first."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.tasks: list[ProgressTask] = []

    @contextmanager
    def show(self, task: ProgressTask, is_main_part: bool = False) -> Iterator[None]:
        """Show `task` for a context; with `is_main_part` it is the main part of the innermost open one's step."""
        if is_main_part and self.tasks:
            self.tasks[-1].main_part = task
        is_first = not self.tasks
        self.tasks.append(task)
        try:
            with self.start() if is_first else nullcontext():
                yield
        finally:
            self.tasks.remove(task)

    def start(self) -> AbstractContextManager[object]:
        """Return the context that holds while any task is open."""
        return nullcontext()


def build_display(stream: TextIO) -> Display:
    """Build the display for a terminal or for a file."""
    return LiveDisplay(stream) if can_redraw(stream) else LogDisplay(stream)


class LiveDisplay(Display):
    """Shows a line for each open task at the bottom of a terminal; what else is printed scrolls above."""

    @contextmanager
    def start(self) -> Iterator[None]:
        """Draw the lines for a context."""
        from rich.console import Group
        from rich.live import Live

        console = build_console(self.stream)
        console.soft_wrap = True  # lines that are printed meanwhile stay as they are
        live = Live(
            get_renderable=lambda: Group(*(build_line(task, console.width) for task in list(self.tasks))),
            console=console,
            refresh_per_second=REFRESHES_PER_S,
            transient=True,
            redirect_stdout=sys.stdout.isatty(),
        )
        live.start(refresh=True)
        try:
            yield
        finally:
            live.stop()


def build_line(task: ProgressTask, width: int) -> RenderableType:
    """Build the line of a task: description and count or instead the detail, bar, percent, speed, remaining time.

    If `width` cells are too few, the speed is left out, then the bar.
    """
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    names = [task.format_state()] if task.detail else [task.format_description(), task.format_state()]
    speed, remaining = task.format_speed(), task.format_remaining()
    numbers = [text for text in (task.format_fraction(), speed, remaining) if text]

    def compute_bar_width() -> int:
        return min(MAX_BAR_WIDTH, width - 1 - sum(measure_width(text) + COLUMN_GAP for text in [*names, *numbers]))

    if compute_bar_width() < MIN_BAR_WIDTH and speed:
        numbers.remove(speed)
    cells: list[RenderableType] = [Text(text) for text in [*names, *numbers]]
    if (bar_width := compute_bar_width()) >= MIN_BAR_WIDTH:
        bar = ProgressBar(task.total or None, task.num_done, width=bar_width, pulse=not task.total)
        cells.insert(len(names), bar)
    grid = Table.grid(padding=(0, COLUMN_GAP, 0, 0), pad_edge=False)
    for _ in cells:
        grid.add_column(no_wrap=True)
    grid.add_row(*cells)
    return grid


class LogDisplay(Display):
    """Writes a line of each task to a file after half a minute, and later after each tenth of the time so far."""

    @contextmanager
    def show(self, task: ProgressTask, is_main_part: bool = False) -> Iterator[None]:
        """Log `task` for a context, see `Display.show`."""
        due_time = task.start_time + MIN_LOG_INTERVAL_S

        def write_if_due(task: ProgressTask) -> None:
            nonlocal due_time
            if (now := time.monotonic()) >= due_time:
                due_time = now + max(MIN_LOG_INTERVAL_S, LOG_INTERVAL_FRACTION * (now - task.start_time))
                print(escape_text(format_log_line(task)), file=self.stream, flush=True)

        task.on_advance = write_if_due
        with super().show(task, is_main_part):
            yield


def format_log_line(task: ProgressTask) -> str:
    """Return the line of a task in a log file: description, state, percent, speed, remaining time."""
    parts = [task.format_state(), task.format_fraction(), task.format_speed(), task.format_remaining()]
    return f"{task.format_description()}: {', '.join(filter(None, parts))}"
