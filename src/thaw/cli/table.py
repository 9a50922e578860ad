"""Prints rows of text as a table or as CSV."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table
from rich.text import Text

from thaw.config.printable import escape_line
from thaw.system.csv_files import write_rows
from thaw.system.terminal import build_console

Rows = Sequence[Sequence[str]]


@dataclass(frozen=True)
class Column:
    """A column: numbers are right-aligned; `no_wrap` cells are never broken over lines while others can be."""

    heading: str
    is_numeric: bool = False
    no_wrap: bool = False


def print_table(columns: Sequence[Column], rows: Rows, title: str | None = None) -> None:
    """Print a table; a cell that is too wide continues in the next line."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        justify, no_wrap = "right" if column.is_numeric else "left", column.is_numeric or column.no_wrap
        table.add_column(column.heading, justify=justify, overflow="fold", no_wrap=no_wrap)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*(Text(escape_line(cell)) for cell in row))
    build_console().print(table)


def print_csv(columns: Sequence[Column], rows: Rows) -> None:
    """Print comma-separated values with a header."""
    write_rows(sys.stdout, [[column.heading for column in columns], *rows])


def print_rows(columns: Sequence[Column], rows: Rows, as_csv: bool) -> None:
    """Print a table, or comma-separated values."""
    (print_csv if as_csv else print_table)(columns, rows)
