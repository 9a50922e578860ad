"""How library code talks to the person who started it. The default is silent; the command line passes a console."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


class Reporter:
    """Silent: every method does nothing. Library code takes a reporter and never prints by itself."""

    @property
    def shows_progress(self) -> bool:
        """Whether progress bars are wanted."""
        return False

    def write(self, text: str = "", style: str = "") -> None:
        """Show a line or a block of text. `style` is a style of rich: "bold", "dim", "italic", "yellow"."""

    def warn(self, text: str) -> None:
        """Show a warning."""

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show a progress bar over `total` steps; yields the function that advances it by so many."""
        yield lambda _steps: None


class ConsoleReporter(Reporter):
    """Writes to standard output, and progress bars to standard error if it is a terminal or a notebook."""

    @property
    def shows_progress(self) -> bool:
        return sys.stderr.isatty() or is_notebook()

    def write(self, text: str = "", style: str = "") -> None:
        if style and sys.stdout.isatty():
            from rich.console import Console

            Console(highlight=False, soft_wrap=True).print(text, style=style, markup=False)
        else:
            print(text, flush=True)

    def warn(self, text: str) -> None:
        self.write(f"warning: {text}")

    @contextmanager
    def progress(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        if not self.shows_progress:
            yield lambda _steps: None
            return
        from tqdm.auto import tqdm

        with tqdm(total=total, desc=description, leave=False) as progress_bar:

            def advance(steps: int) -> None:
                progress_bar.update(steps)

            yield advance


class ProgressReporter(ConsoleReporter):
    """Shows progress bars and writes nothing else: the default in a notebook."""

    def write(self, text: str = "", style: str = "") -> None:
        pass

    def warn(self, text: str) -> None:
        pass


def is_notebook() -> bool:
    """Return whether this process is the kernel of a notebook."""
    ipython: Any = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return type(shell).__name__ == "ZMQInteractiveShell"


SILENT = Reporter()
