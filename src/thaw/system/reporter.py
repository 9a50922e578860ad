"""How library code talks to the person who started it. The default is silent; the command line passes a console."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from thaw.config.printable import escape_line, escape_text
from thaw.system.terminal import build_console

if TYPE_CHECKING:
    from rich.console import Console


class Reporter:
    """Silent: every method does nothing. Library code takes a reporter and never prints by itself."""

    @property
    def shows_progress(self) -> bool:
        """Whether progress bars are wanted."""
        return False

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
    def progress(self, description: str, total: int, unit: str = "") -> Iterator[Callable[[int], None]]:
        """Show a progress bar over `total` steps (0: unknown) of `unit`; yields the function that advances it."""
        yield lambda _steps: None


class ConsoleReporter(Reporter):
    """Writes to standard output, logs to standard error, and shows progress bars there if it is a terminal or a
    notebook."""

    def __init__(self, log_stream: TextIO | None = None) -> None:
        self.log_stream = log_stream

    @property
    def shows_progress(self) -> bool:
        return sys.stderr.isatty() or is_notebook()

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
        with os.fdopen(os.dup(2), "w", buffering=1) as stream:
            yield ConsoleReporter(stream)

    @contextmanager
    def progress(self, description: str, total: int, unit: str = "") -> Iterator[Callable[[int], None]]:
        if not self.shows_progress:
            yield lambda _steps: None
            return
        from tqdm.auto import tqdm

        with tqdm(
            total=total or None,
            desc=escape_line(description),
            leave=False,
            unit=unit or " images",
            unit_scale=bool(unit),
        ) as progress_bar:

            def advance(steps: int) -> None:
                progress_bar.update(steps)

            yield advance


class ProgressReporter(ConsoleReporter):
    """Shows progress bars and writes nothing else: the default in a notebook."""

    def write(self, text: str = "", style: str = "") -> None:
        pass

    def draw(self, print_to: Callable[[Console], object]) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def log(self, text: str) -> None:
        pass


def is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"


SILENT = Reporter()
