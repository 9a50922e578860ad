"""Rows of text as a table on the screen, or as CSV."""

from __future__ import annotations

import csv
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 160  # columns where there is no terminal: wide enough for timm's longest names


@dataclass(frozen=True)
class Column:
    """`number`: right-aligned. `keep`: never broken over lines while the others can give way."""

    heading: str
    is_numeric: bool = False
    no_wrap: bool = False


def build_console() -> Console:
    """As wide as the terminal; wide where the output goes elsewhere."""
    return Console(highlight=False, markup=False, width=None if Console().is_terminal else PIPED_WIDTH)


def print_table(columns: Sequence[Column], rows: Sequence[Sequence[str]], title: str | None = None) -> None:
    """No cell is cut short: what does not fit goes on in the next line."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        justify, no_wrap = "right" if column.is_numeric else "left", column.is_numeric or column.no_wrap
        table.add_column(column.heading, justify=justify, overflow="fold", no_wrap=no_wrap)  # type: ignore[arg-type]
    for row in rows:
        table.add_row(*map(Text, row))
    build_console().print(table)


def print_csv(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerows([[column.heading for column in columns], *rows])
