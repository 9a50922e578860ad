"""Small tables of objects in a terminal and in a notebook, and as data frames."""

from __future__ import annotations

import html
import importlib
import importlib.util
from collections.abc import Collection, Mapping, Sequence
from itertools import starmap
from typing import Any

Rows = Sequence[Sequence[str]]


def render_text_table(headings: Sequence[str], rows: Rows, left_columns: Collection[int] = (0,)) -> str:
    """Align the columns of a table: those with the indices `left_columns` to the left, the others, numbers, to the
    right."""
    widths = [max(map(measure_width, column)) for column in zip(headings, *rows, strict=True)]

    def align(index: int, cell: str) -> str:
        padding = " " * (widths[index] - measure_width(cell))
        return cell + padding if index in left_columns else padding + cell

    return "\n".join("  ".join(starmap(align, enumerate(row))).rstrip() for row in [headings, *rows])


def measure_width(text: str) -> int:
    """Return how many cells of a terminal `text` takes; a Chinese character takes two."""
    from rich.cells import cell_len

    return cell_len(text)


def shorten_middle(text: str, width: int) -> str:
    """Return `text` in at most `width` cells; an ellipsis replaces the middle of one that is longer.

    Both ends of a name tell it from others: `vit_small_patch16_224.augreg` and `vit_small_patch16_384.augreg`.
    """
    if measure_width(text) <= width:
        return text
    from rich.cells import set_cell_size

    num_last = (width - 1) // 2
    first = set_cell_size(text, width - 1 - num_last).rstrip()
    last = set_cell_size(text[::-1], num_last)[::-1].lstrip()
    return f"{first}…{last}"


def render_html_table(title: str, headings: Sequence[str], rows: Rows) -> str:
    """Render a table for a notebook. All text is escaped; without headings the first column holds the names of rows."""
    head = _render_row("th", headings) if headings else ""
    body = "".join(_render_row("td", row) for row in rows)
    return f"<div><b>{html.escape(title)}</b><table>{head}{body}</table></div>"


def _render_row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def build_data_frame(rows: Sequence[Mapping[str, Any]], text_columns: Collection[str] | None = None) -> Any:
    """Return rows as a pandas data frame if pandas is installed, otherwise as a list of dicts.

    `text_columns` is for rows of a CSV file, whose values are all text: in every other column, text becomes the number
    that it is, and None if it is empty. None leaves all values as they are.
    """
    values = [dict(row) for row in rows]
    if text_columns is not None:
        values = [
            {key: value if key in text_columns else _parse_number(value) for key, value in row.items()}
            for row in values
        ]
    if importlib.util.find_spec("pandas") is None:
        return values
    return importlib.import_module("pandas").DataFrame(values)


def _parse_number(text: str) -> int | float | None:
    if text == "":
        return None
    number = float(text)
    return int(number) if text.lstrip("-").isdigit() else number
