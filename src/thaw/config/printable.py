"""Make text from outside safe to show: names of files and classes, files of others, answers of servers.

A terminal obeys control characters, and bidirectional ones reorder what a reader sees: a file can be named so that its
name deletes the screen, fakes a line of thaw's own output, or shows `exe.jpg` for `gpj.exe`. They are shown as escapes.
"""

from __future__ import annotations

import re

# C0 but tab and line feed, DEL, C1; Unicode's separators of lines; its bidirectional controls; halves of characters,
# which Python also uses for the bytes of file names that are not UTF-8.
_UNPRINTABLE = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff"
UNPRINTABLE_PATTERN = re.compile(f"[{_UNPRINTABLE}]")
UNPRINTABLE_IN_LINE_PATTERN = re.compile(f"[{_UNPRINTABLE}\t\n]")
SHORT_ESCAPES = {"\t": r"\t", "\n": r"\n", "\r": r"\r"}
UNDECODED_BYTES = range(0xDC80, 0xDD00)  # how surrogateescape keeps the bytes 0x80 to 0xff


def escape_text(text: str) -> str:
    """Return `text` with control and bidirectional characters as escapes such as \\x1b; it keeps its lines and tabs."""
    return UNPRINTABLE_PATTERN.sub(_escape_character, text)


def escape_line(text: str) -> str:
    """Return `text` in one line: as `escape_text`, with line breaks and tabs as \\n and \\t. For names from outside."""
    return UNPRINTABLE_IN_LINE_PATTERN.sub(_escape_character, text)


def _escape_character(match: re.Match[str]) -> str:
    character, code = match[0], ord(match[0])
    if code in UNDECODED_BYTES:
        code -= UNDECODED_BYTES.start - 0x80
    return SHORT_ESCAPES.get(character) or (f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}")
