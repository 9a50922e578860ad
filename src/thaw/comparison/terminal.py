"""The table of a comparison on a terminal."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from thaw.comparison.results import ComparisonResults
from thaw.comparison.settings import shorten_keys
from thaw.comparison.tables import build_cells, build_headings
from thaw.system.reporter import Reporter

DEFAULT_WIDTH = 160  # columns if there is no terminal
OPTIONAL_COLUMNS = ("images/s", "trainable", "seconds", "val accuracy", "95 % interval")  # dropped if it is narrow


def report_comparison(comparison: ComparisonResults, page_path: Path, reporter: Reporter) -> None:
    """Show the table, caveats, runs that are not done, notes, and the path of the page."""
    console = Console(highlight=False, markup=False, width=None if Console().is_terminal else DEFAULT_WIDTH)
    with console.capture() as capture:
        hidden_columns = _print_comparison(comparison, console)
        hidden_note = f", with {', '.join(hidden_columns)}" if hidden_columns else ""
        console.print(Text(f"everything is in {page_path}{hidden_note}"), soft_wrap=True)
    reporter.write(capture.get().removesuffix("\n"))


def format_text(comparison: ComparisonResults) -> str:
    """Return the table, caveats, runs that are not done and notes as plain text."""
    console = Console(file=io.StringIO(), highlight=False, markup=False, width=DEFAULT_WIDTH, no_color=True)
    with console.capture() as capture:
        _print_comparison(comparison, console)
    return capture.get().strip("\n")


def _print_comparison(comparison: ComparisonResults, console: Console) -> list[str]:
    """Print to `console` and return the headings of the columns that it is too narrow for."""
    table, hidden_columns = _build_fitting_table(console, comparison)
    console.print(Text(f"\n{comparison.subject}", style="bold"))
    console.print(table)
    console.print()
    for caveat in comparison.caveats:
        console.print(Text("caution: ", style="yellow").append(caveat, style="default"))
    for run in comparison.unfinished_runs:
        console.print(Text(f"{run.status}: ", style="red").append(f"{run.name}: {run.reason}", style="default"))
    for note in comparison.notes:
        console.print(Text(note, style="dim"))
    return hidden_columns


def _build_fitting_table(console: Console, comparison: ComparisonResults) -> tuple[Table, list[str]]:
    """Return the table without the optional columns that do not fit, and the headings of those."""
    for num_hidden in range(len(OPTIONAL_COLUMNS)):
        table = _build_table(comparison, OPTIONAL_COLUMNS[:num_hidden])
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            return table, list(OPTIONAL_COLUMNS[:num_hidden])
    return _build_table(comparison, OPTIONAL_COLUMNS), list(OPTIONAL_COLUMNS)


def _build_table(comparison: ComparisonResults, hidden_columns: Collection[str]) -> Table:
    table = Table(box=None, pad_edge=False)
    setting_names = shorten_keys([tuple(key.split(".")) for key in comparison.keys])
    titles = [*setting_names, *build_headings(comparison)[len(setting_names) :]]
    visible_indices = [
        index for index, title in enumerate(titles) if index < len(setting_names) or title not in hidden_columns
    ]
    for index in visible_indices:
        is_setting = index < len(setting_names)
        table.add_column(
            titles[index], justify="left" if is_setting else "right", overflow="fold", no_wrap=not is_setting
        )
    for configuration in comparison.configurations:
        row = build_cells(comparison, configuration)
        table.add_row(
            *(Text(row[index].text) for index in visible_indices), style="bold" if configuration.is_reference else None
        )
    return table
