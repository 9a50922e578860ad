"""The one way to the terminal: whatever is printed, text from outside cannot control it, and it can show the text."""

from __future__ import annotations

import codecs
import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO, cast

from thaw.config.printable import escape_text

if TYPE_CHECKING:
    from rich.console import Console

PIPED_WIDTH = 160  # columns if there is no terminal: enough for timm's longest names

SCREEN_ERRORS = "thaw.screen"  # how characters that a screen cannot show are encoded, a name for `codecs`
SUBSTITUTES = {"±": "+-", "·": "-", "…": "~", "→": "->", "—": "-", "━": "-", "─": "-", "│": "|"}


def substitute_unencodable(error: UnicodeError) -> tuple[str, int]:
    """Return what stands for the characters that an encoding lacks, as an error handler of `codecs`."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    characters = error.object[error.start : error.end]
    fallback = "backslashreplace"
    texts = [SUBSTITUTES.get(char) or char.encode("ascii", fallback).decode("ascii") for char in characters]
    return "".join(texts), error.end


codecs.register_error(SCREEN_ERRORS, substitute_unencodable)


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
    """Escape for a context what this process prints to standard output and standard error.

    A screen that is not UTF-8 gets ASCII for the characters that it lacks.
    """
    previous_streams = sys.stdout, sys.stderr
    try:
        sys.stdout, sys.stderr = map(_build_escaping_stream, previous_streams)
        with substitute_on(previous_streams[0]), substitute_on(previous_streams[1]):
            yield
    finally:
        sys.stdout, sys.stderr = previous_streams


@contextmanager
def substitute_on(stream: TextIO) -> Iterator[None]:
    """Write substitutes for the characters that the encoding of `stream` lacks, for a context."""
    text_stream = get_unescaped_stream(stream)
    if not isinstance(text_stream, io.TextIOWrapper):  # a notebook's or a test's, which have no encoding
        yield
        return
    previous_errors = text_stream.errors
    text_stream.reconfigure(errors=SCREEN_ERRORS)
    try:
        yield
    finally:
        text_stream.reconfigure(errors=previous_errors)


def _build_escaping_stream(stream: TextIO) -> TextIO:
    return stream if isinstance(stream, EscapingStream) else cast(TextIO, EscapingStream(stream))


def get_unescaped_stream(stream: TextIO) -> TextIO:
    """Return what `stream` writes to, for a writer of colors and progress bars that escapes text itself."""
    if hasattr(stream, "rich_proxied_file"):
        return cast(TextIO, AboveLiveLines(stream))
    return stream.unescaped_stream if isinstance(stream, EscapingStream) else stream


class AboveLiveLines:
    """The stream by which rich prints above its live lines. A console of rich would look through and bypass it."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        if name == "rich_proxied_file":
            raise AttributeError(name)
        return getattr(self._stream, name)


def can_redraw(stream: TextIO) -> bool:
    """Return whether lines on `stream` can be drawn again: it is a terminal, and a capable one."""
    return stream.isatty() and os.environ.get("TERM") not in ("dumb", "unknown")


def build_console(stream: TextIO | None = None) -> Console:
    """Return a console of rich on `stream`, by default standard output, that interprets no markup and escapes its text;
    its own colors and bars stay.

    It is as wide as the terminal, or PIPED_WIDTH if the output goes elsewhere.
    """
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.segment import Segment

    class EscapingConsole(Console):
        def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
            for segment in super().render(renderable, options):
                yield segment if segment.control else Segment(escape_text(segment.text), segment.style)

        def on_broken_pipe(self) -> None:
            raise  # rich calls it while it handles the error, and would exit with status 1

    console = EscapingConsole(file=get_unescaped_stream(stream or sys.stdout), highlight=False, markup=False)
    if not console.is_terminal:
        console.width = PIPED_WIDTH
    return console
