"""A comparison on the screen."""

from __future__ import annotations

from collections.abc import Collection

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thaw.comparison.compared import Comparison
from thaw.comparison.settings import short_names
from thaw.comparison.tables import cells, headings

PIPED = 160  # columns where there is no terminal
LEFT_OUT_FIRST = ("images/s", "trainable", "seconds", "val accuracy", "95 % interval")  # on a narrow one


def print_comparison(comparison: Comparison) -> None:
    """The table, what to beware of, what is not done, and where the page lies."""
    console = Console(highlight=False, markup=False, width=None if Console().is_terminal else PIPED)
    table, left_out = _fitting(console, comparison)
    console.print(Text(f"\n{comparison.subject}", style="bold"))
    console.print(table)
    console.print()
    for caveat in comparison.caveats:
        console.print(Text("caution: ", style="yellow").append(caveat, style="default"))
    for one in comparison.unfinished:
        console.print(Text(f"{one.status}: ", style="red").append(f"{one.name}: {one.reason}", style="default"))
    for note in comparison.notes:
        console.print(Text(note, style="dim"))
    rest = f", with {', '.join(left_out)}" if left_out else ""
    console.print(Text(f"everything is in {comparison.page}{rest}"), soft_wrap=True)


def _fitting(console: Console, comparison: Comparison) -> tuple[Table, list[str]]:
    """The table without as many columns as there is no room for, and their headings."""
    for count in range(len(LEFT_OUT_FIRST)):
        table = _table(comparison, LEFT_OUT_FIRST[:count])
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            return table, list(LEFT_OUT_FIRST[:count])
    return _table(comparison, LEFT_OUT_FIRST), list(LEFT_OUT_FIRST)


def _table(comparison: Comparison, left_out: Collection[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    settings = short_names([tuple(key.split(".")) for key in comparison.keys])
    titles = [*settings, *headings(comparison)[len(settings) :]]
    shown = [place for place, title in enumerate(titles) if place < len(settings) or title not in left_out]
    for place in shown:
        is_setting = place < len(settings)
        table.add_column(
            titles[place], justify="left" if is_setting else "right", overflow="fold", no_wrap=not is_setting
        )
    for one in comparison.configurations:
        row = cells(comparison, one)
        table.add_row(*(Text(row[place].text) for place in shown), style="bold" if one.is_reference else None)
    return table
