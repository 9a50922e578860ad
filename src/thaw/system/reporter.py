"""How library code talks to the person who started it. The default is silent; the command line passes a console."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from thaw.config.printable import escape_text
from thaw.system.progress import Display, ProgressTask, build_display
from thaw.system.terminal import PIPED_WIDTH, SCREEN_ERRORS, build_console, get_unescaped_stream

if TYPE_CHECKING:
    from rich.console import Console


class Reporter:
    """Silent: every method does nothing. Library code takes a reporter and never prints by itself."""

    @property
    def shows_progress(self) -> bool:
        """Whether progress is wanted."""
        return False

    @property
    def width(self) -> int:
        """The number of cells that a line of a table may take."""
        return PIPED_WIDTH

    def write(self, text: str = "", style: str = "") -> None:
        """Show a line or a block of text. `style` is a style of rich: "bold", "dim", "italic", "yellow"."""

    def draw(self, print_to: Callable[[Console], object]) -> None:
        """Show what `print_to(console)` prints to a console of rich: tables and text in colors."""

    def warn(self, text: str) -> None:
        """Show a warning."""

    def log(self, text: str) -> None:
        """Show how work goes on: which job of a sweep ended, which failed."""

    @contextmanager
    def keep_log(self) -> Iterator[Reporter]:
        """Yield a reporter whose `log` shows text even while this process redirects its standard error."""
        yield self

    @contextmanager
    def progress(
        self, description: str, total: int, unit: str = "images", initial: int = 0, *, is_main_part: bool = False
    ) -> Iterator[ProgressTask]:
        """Show the progress of some work for a context; yields what counts its steps, see `ProgressTask`.

        With `is_main_part` it is the main part of a step of the work around it: the training in a job of a sweep.
        """
        yield ProgressTask(description, total, unit, initial)


class ConsoleReporter(Reporter):
    """Writes to standard output, and logs and progress to standard error: live lines on a terminal, otherwise a line
    now and then."""

    def __init__(self, log_stream: TextIO | None = None) -> None:
        self.log_stream = log_stream
        self._display: Display | None = None

    @property
    def shows_progress(self) -> bool:
        return True

    @property
    def width(self) -> int:
        return build_console().width

    def write(self, text: str = "", style: str = "") -> None:
        if style and sys.stdout.isatty():
            build_console().print(text, style=style, soft_wrap=True)
        else:
            print(escape_text(text), flush=True)

    def draw(self, print_to: Callable[[Console], object]) -> None:
        print_to(build_console())

    def warn(self, text: str) -> None:
        self.write(f"warning: {text}")

    def log(self, text: str) -> None:
        print(escape_text(text), file=self.log_stream or sys.stderr, flush=True)

    @contextmanager
    def keep_log(self) -> Iterator[Reporter]:
        with os.fdopen(os.dup(2), "w", buffering=1, errors=SCREEN_ERRORS) as stream:
            yield ConsoleReporter(stream)

    @contextmanager
    def progress(
        self, description: str, total: int, unit: str = "images", initial: int = 0, *, is_main_part: bool = False
    ) -> Iterator[ProgressTask]:
        task = ProgressTask(description, total, unit, initial)
        if self._display is None or not self._display.tasks:
            self._display = build_display(get_unescaped_stream(self.log_stream or sys.stderr))
        with self._display.show(task, is_main_part):
            yield task


SILENT = Reporter()
