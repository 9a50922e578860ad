"""The one way to the terminal: whatever is printed, text from outside cannot control it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

from thaw.config.printable import escape_text

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 160  # columns if there is no terminal: enough for timm's longest names


class EscapingStream:
    """A text stream that writes control and bidirectional characters as escapes; all else is that of `stream`.

    A carriage return at the start or end of what is written at once stays: progress bars of other packages need it.
    """

    def __init__(self, stream: TextIO) -> None:
        self.unescaped_stream = stream

    def write(self, text: str) -> int:
        """Write `text` with escapes and return its length."""
        if not isinstance(text, str):
            raise TypeError(f"text is needed, not {type(text).__name__}")
        body = text.strip("\r")
        start, end = text[: len(text) - len(text.lstrip("\r"))], text[len(text.rstrip("\r")) :]
        self.unescaped_stream.write(start + escape_text(body) + end if body else text)
        return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write all `lines`."""
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unescaped_stream, name)


@contextmanager
def escape_output() -> Iterator[None]:
    """Escape for a context what this process prints to standard output and standard error."""
    previous_streams = sys.stdout, sys.stderr
    try:
        sys.stdout, sys.stderr = map(_build_escaping_stream, previous_streams)
        yield
    finally:
        sys.stdout, sys.stderr = previous_streams


def _build_escaping_stream(stream: TextIO) -> TextIO:
    return stream if isinstance(stream, EscapingStream) else cast(TextIO, EscapingStream(stream))


def get_unescaped_stream(stream: TextIO) -> TextIO:
    """Return what `stream` writes to, for a writer of colors and progress bars that escapes text itself."""
    return stream.unescaped_stream if isinstance(stream, EscapingStream) else stream


def build_console(*, stderr: bool = False) -> Console:
    """Return a console of rich that interprets no markup and escapes its text; its own colors and bars stay.

    It is as wide as the terminal, or PIPED_WIDTH if the output goes elsewhere.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class EscapingConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(escape_text(segment.text), segment.style)

    stream = get_unescaped_stream(sys.stderr if stderr else sys.stdout)
    console = EscapingConsole(file=stream, highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console
