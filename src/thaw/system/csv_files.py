"""Write and read CSV that a spreadsheet shows as text: no name of a file or class is taken for a formula."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable
from typing import Any, TextIO

FORMULA_PATTERN = re.compile(r"'*[=+\-@\t\r]")  # quotes: what already looks quoted is quoted once more
SPECIAL_PATTERN = re.compile(r'[,"\r\n]')
QUOTED_PATTERN = re.compile(r"'+[=+\-@\t\r]")


def write_rows(stream: TextIO, rows: Iterable[Iterable[Any]]) -> None:
    """Write `rows` as CSV. Text that a spreadsheet would compute gets a leading apostrophe; numbers stay numbers.

    A name such as `=HYPERLINK(...)` would otherwise be executed by whoever opens the file (OWASP, CSV injection).
    """
    for row in rows:
        stream.write(",".join(map(_format_cell, row)) + "\n")


def format_rows(rows: Iterable[Iterable[Any]]) -> str:
    """Return `rows` as CSV, as `write_rows` writes it."""
    buffer = io.StringIO()
    write_rows(buffer, rows)
    return buffer.getvalue()


def read_rows(stream: Iterable[str]) -> list[dict[str, str]]:
    """Return the rows of CSV with a header line by column, as they were before `write_rows`.

    Raises:
        csv.Error: if it is not CSV, or a row has more or fewer cells than the header.
    """
    reader = csv.reader(stream, strict=True)
    header = [unquote_formula(name) for name in next(reader, [])]
    rows = []
    for row in filter(None, reader):
        if len(row) != len(header):
            raise csv.Error(f"line {reader.line_num} has {len(row)} cells, and the header {len(header)}")
        rows.append(dict(zip(header, map(unquote_formula, row), strict=True)))
    return rows


def _format_cell(cell: Any) -> str:
    """Return `cell` as RFC 4180 asks; Python's own writer leaves a carriage return unquoted."""
    text = "" if cell is None else str(cell)
    if isinstance(cell, str) and FORMULA_PATTERN.match(cell) and not _is_number(cell):
        text = f"'{text}"
    return '"' + text.replace('"', '""') + '"' if SPECIAL_PATTERN.search(text) else text


def unquote_formula(cell: str) -> str:
    """Return `cell` without the apostrophe that `write_rows` puts before text that a spreadsheet would compute."""
    return cell[1:] if QUOTED_PATTERN.match(cell) else cell


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return text == text.strip()
