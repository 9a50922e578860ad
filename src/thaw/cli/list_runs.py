"""`thaw list runs [DIR]`: list runs with status, data set, strategy, accuracy and time."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from thaw.config.errors import EXIT_SUCCESS, Problem, UserError

DEFAULT_DIRECTORY = "outputs"
HEADINGS = ("run", "status", "data set", "strategy", "backbone", "accuracy", "time", "age")
NUMERIC_HEADINGS = ("accuracy", "time", "age")


def list_runs(directory: str | None, as_csv: bool) -> int:
    """Print the runs in or below `directory` (default: outputs) and return the exit status.

    Raises:
        UserError: if there is no such folder, or no run in it.
    """
    from thaw.cli.table import Column, print_rows
    from thaw.runs.overview import read_overviews, shorten_names, to_cells

    folder = Path(directory or DEFAULT_DIRECTORY).expanduser()
    runs = read_overviews(folder) if folder.is_dir() else []
    if not runs:
        got = "no run in it or below" if folder.is_dir() else "no such folder"
        raise UserError(
            "there is nothing to list.", [Problem(str(folder), got, "a folder of runs", "thaw list runs DIR")]
        )
    paths = [str(run.directory.relative_to(folder)) for run in runs]
    names, now = paths if as_csv else shorten_names(paths), datetime.now().astimezone()
    columns = [
        Column(name, is_numeric=name in NUMERIC_HEADINGS, no_wrap=name in ("run", "status")) for name in HEADINGS
    ]
    print_rows(columns, [to_cells(run, name, now) for run, name in zip(runs, names, strict=True)], as_csv)
    if not as_csv:
        _print_notes(folder, [(path, name, run.problem) for path, name, run in zip(paths, names, runs, strict=True)])
    return EXIT_SUCCESS


def _print_notes(folder: Path, rows: list[tuple[str, str, str]]) -> None:
    """Print what is wrong with damaged runs, and how a short name is used."""
    for path, _, problem in rows:
        if problem:
            print(f"\ndamaged: {folder / path}\n  {problem}")
    shortened_name = next((name for path, name, _ in rows if path != name), "")
    if shortened_name:
        print(f"\nA name with * is a pattern for the shell: thaw report {folder}/{shortened_name}")
