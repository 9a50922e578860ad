"""Text from outside is printed so that it cannot control a terminal or fake a line."""

from __future__ import annotations

import io
import sys

import pytest

from thaw.config.errors import Problem, UserError, format_names
from thaw.config.printable import escape_line, escape_text
from thaw.system.reporter import ConsoleReporter
from thaw.system.terminal import build_console, escape_output


@pytest.mark.parametrize("code", [*range(0x20), *range(0x7F, 0xA0), 0x61C, 0x200E, 0x200F, *range(0x2028, 0x202F),
                                  *range(0x2066, 0x206A), 0xD800, 0xDC41, 0xDFFF])  # fmt: skip
def test_a_character_that_is_not_printable_becomes_an_escape(code: int) -> None:
    escaped = escape_line(f"a{chr(code)}b")
    assert escaped.isprintable()
    assert escaped.startswith("a\\")
    assert escape_text(chr(code)) == (chr(code) if chr(code) in "\t\n" else escape_line(chr(code)))


@pytest.mark.parametrize("text", ["größe 日本語 🐜 \\ é", "e\u0301 👩\u200d🔬", "עברית"])
def test_text_of_any_language_stays(text: str) -> None:
    assert escape_line(text) == text


def test_bytes_that_are_no_utf_8_are_shown_as_in_a_shell() -> None:
    assert escape_line("caf\udce9") == r"caf\xe9"


def test_no_name_fakes_a_line_of_an_error() -> None:
    name = "ants\n      fix:   rm -r ~"
    error = UserError("wrong.", [Problem(name, name, format_names([name]), name)])
    lines = [line for line in str(error).splitlines() if line.startswith("      fix:   rm")]
    assert lines == []


def test_all_that_is_printed_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = io.StringIO(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    with escape_output(), escape_output():
        print("one\x1b[2J\ntwo")
        print("\rbar 50 %\r", file=sys.stderr)
        sys.stdout.writelines(["\x07", "\n"])
        build_console().print("three\x1b[2J")
    assert sys.stdout is streams[0]
    assert streams[0].getvalue() == "one\\x1b[2J\ntwo\n\\x07\nthree\\x1b[2J\n"
    assert streams[1].getvalue() == "\rbar 50 %\r\n"


def test_colors_of_a_terminal_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with escape_output():
        ConsoleReporter().write("bold \x1b[2J", "bold")
    assert stream.getvalue() == "\x1b[1mbold \\x1b[2J\x1b[0m\n"
