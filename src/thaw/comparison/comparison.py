"""Compare runs: `build_comparison` computes the numbers, `Comparison.save` writes the files."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from thaw.comparison.page import render_comparison_page, render_comparison_table
from thaw.comparison.records import find_runs, read_results
from thaw.comparison.results import ComparisonResults, build_results
from thaw.comparison.tables import (
    build_class_rows,
    build_configuration_rows,
    build_run_rows,
    format_csv,
    format_markdown,
)
from thaw.comparison.terminal import format_text, report_comparison
from thaw.system.files import write_atomically, write_text
from thaw.system.reporter import SILENT, Reporter
from thaw.system.tables import build_data_frame

RunSource = str | os.PathLike[str]
"""A `Run`, the path of a run directory, or a sweep or folder with runs below it."""
FIGURE_TITLES = {
    "accuracy": "Validation accuracy by epoch",
    "loss": "Validation loss by epoch",
    "time": "Accuracy against time",
    "classes": "Classes: percentage points above or below the reference",
}


class Comparison:
    """Runs side by side: one row per configuration, that is, per set of runs that differ only in the seed.

    `configurations`, `runs` and `classes` are pandas data frames, or lists of dicts if pandas is not installed. A
    notebook shows the table. `results` holds the numbers as objects.
    """

    def __init__(self, results: ComparisonResults) -> None:
        self.results = results

    @cached_property
    def configurations(self) -> Any:
        """One row per configuration, sorted by test accuracy: the differing keys, accuracies with interval, the test
        against the reference, times, number of trainable parameters."""
        return build_data_frame(build_configuration_rows(self.results))

    @cached_property
    def runs(self) -> Any:
        """One row per run: configuration, seed, metrics, times; status and reason of a run that is not done."""
        return build_data_frame(build_run_rows(self.results))

    @cached_property
    def classes(self) -> Any:
        """One row per configuration and class: the accuracy, and the difference to the reference."""
        return build_data_frame(build_class_rows(self.results))

    @property
    def caveats(self) -> list[str]:
        """Sentences about what limits the comparison, the most serious first."""
        return list(self.results.caveats)

    @property
    def notes(self) -> list[str]:
        """Sentences about how the numbers were computed."""
        return list(self.results.notes)

    def to_markdown(self) -> str:
        """Return the table with caveats and notes as Markdown, without figures."""
        return format_markdown(self.results, {})

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write comparison.md, .csv and .html into `directory`, and the figures that have something to show:
        comparison_accuracy, _loss, _time and _classes.png. Returns the path of the page."""
        from thaw.comparison.figures import draw_figures  # matplotlib takes half a second to import

        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        figures = draw_figures(self.results.configurations)
        files = {f"comparison_{name}.png": content for name, content in figures.items()}
        titles = [FIGURE_TITLES[name] for name in figures]
        for name, content in files.items():
            _write_bytes(directory / name, content)
        write_text(directory / "comparison.csv", format_csv(self.results))
        markdown = format_markdown(self.results, dict(zip(titles, files, strict=True)))
        write_text(directory / "comparison.md", markdown)
        page_path = directory / "comparison.html"
        write_text(page_path, render_comparison_page(self.results, dict(zip(titles, figures.values(), strict=True))))
        return page_path

    def __repr__(self) -> str:
        return format_text(self.results)

    def _repr_html_(self) -> str:
        return render_comparison_table(self.results)


def _write_bytes(file: Path, content: bytes) -> None:
    write_atomically(file, lambda stream: stream.write(content))


def build_comparison(runs: RunSource | Iterable[RunSource]) -> Comparison:
    """Compare runs and write nothing. Each of `runs` is a `Run`, a sweep, or the path of a run directory, a sweep, or
    any folder with runs below it.

    Raises:
        UserError: if a path does not exist or holds no run, or if no run is done.
    """
    sources = [runs] if isinstance(runs, str | os.PathLike) else list(runs)
    directories = [Path(os.fspath(source)).expanduser() for source in sources]
    return Comparison(build_results(read_results(find_runs(directories))))


def compare(
    runs: RunSource | Iterable[RunSource], directory: str | os.PathLike[str], reporter: Reporter = SILENT
) -> Comparison:
    """Compare runs, save the comparison in `directory` and show it.

    Raises:
        UserError: as `build_comparison`; nothing is written then.
    """
    comparison = build_comparison(runs)
    page_path = comparison.save(directory)
    report_comparison(comparison.results, page_path, reporter)
    return comparison
