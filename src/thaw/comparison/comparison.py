"""Compare runs: `build_comparison` computes the numbers, `Comparison.save` writes the files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
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
    format_text,
    join_rows,
    report_comparison,
)
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
    notebook shows the table. Runs of several data sets are compared within each: `groups` holds the numbers of each as
    objects, and `results` those of the one with the most runs.
    """

    def __init__(self, groups: Sequence[ComparisonResults]) -> None:
        self.groups = tuple(groups)
        self.results = self.groups[0]

    @cached_property
    def configurations(self) -> Any:
        """One row per configuration, sorted by test accuracy: the differing keys, accuracies with interval, the test
        against the reference, times, number of trainable parameters."""
        return build_data_frame(join_rows(self.groups, build_configuration_rows))

    @cached_property
    def runs(self) -> Any:
        """One row per run: configuration, seed, metrics, times; status and reason of a run that is not done."""
        return build_data_frame(join_rows(self.groups, build_run_rows))

    @cached_property
    def classes(self) -> Any:
        """One row per configuration and class: the accuracy, and the difference to the reference."""
        return build_data_frame(join_rows(self.groups, build_class_rows))

    @property
    def caveats(self) -> list[str]:
        """Sentences about what limits the comparison, the most serious first."""
        return [caveat for group in self.groups for caveat in group.caveats]

    @property
    def notes(self) -> list[str]:
        """Sentences about how the numbers were computed."""
        return list(dict.fromkeys(note for group in self.groups for note in group.notes))

    @property
    def verdicts(self) -> list[str]:
        """A sentence for each data set: what won, by how much, and whether chance explains it."""
        return [group.verdict for group in self.groups]

    def to_markdown(self) -> str:
        """Return the table with caveats and notes as Markdown, without figures."""
        return "\n".join(format_markdown(group, {}) for group in self.groups)

    def save(self, directory: str | os.PathLike[str]) -> Path:
        """Write comparison.md, .csv and .html into `directory`, and the figures that have something to show:
        comparison_accuracy, _loss, _time and _classes.png, from the second data set on with a number. Returns the path
        of the page."""
        from thaw.comparison.figures import draw_figures  # matplotlib takes half a second to import

        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        figures_by_group: list[dict[str, bytes]] = []
        markdown = []
        for number, group in enumerate(self.groups, start=1):
            figures = draw_figures(group.configurations)
            suffix = f"_{number}" if number > 1 else ""
            files = {FIGURE_TITLES[name]: f"comparison_{name}{suffix}.png" for name in figures}
            for name, content in figures.items():
                _write_bytes(directory / files[FIGURE_TITLES[name]], content)
            figures_by_group.append({FIGURE_TITLES[name]: content for name, content in figures.items()})
            markdown.append(format_markdown(group, files))
        write_text(directory / "comparison.csv", format_csv(join_rows(self.groups, build_configuration_rows)))
        write_text(directory / "comparison.md", "\n".join(markdown))
        page_path = directory / "comparison.html"
        write_text(page_path, render_comparison_page(self.groups, figures_by_group))
        return page_path

    def __repr__(self) -> str:
        return format_text(self.groups)

    def _repr_html_(self) -> str:
        return "".join(map(render_comparison_table, self.groups))


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
    report_comparison(comparison.groups, page_path, reporter)
    return comparison
