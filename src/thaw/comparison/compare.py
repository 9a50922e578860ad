"""Run directories -> comparison.md, .csv, .html and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thaw.comparison.comparison import Comparison, build_comparison
from thaw.comparison.figures import draw_figures
from thaw.comparison.page import render_comparison_page
from thaw.comparison.records import find_runs, read_runs
from thaw.comparison.tables import format_csv, format_markdown
from thaw.system.files import write_atomically, write_text

TITLES = {
    "accuracy": "Validation accuracy by epoch",
    "loss": "Validation loss by epoch",
    "time": "Accuracy against time",
    "classes": "Classes: points above or below the reference",
}


def compare(directories: Sequence[Path], output_dir: Path) -> Comparison:
    """Compares the runs that `directories` are or hold (sweeps, folders of runs) and writes comparison.md, .csv, .html
    and comparison_accuracy, _loss, _time and _classes.png, those there is something to draw for, into `out`.

    Raises:
        UserFault: where a directory is missing or holds no run, or no run is done. Nothing is written then.
    """
    comparison = build_comparison(read_runs(find_runs(directories)), output_dir)
    pictures = draw_figures(comparison.configurations)
    files = {f"comparison_{name}.png": content for name, content in pictures.items()}
    titles = [TITLES[name] for name in pictures]
    output_dir.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_atomically(output_dir / name, lambda stream, content=content: stream.write(content))  # type: ignore[misc]
    write_text(output_dir / "comparison.csv", format_csv(comparison))
    write_text(output_dir / "comparison.md", format_markdown(comparison, dict(zip(titles, files, strict=True))))
    write_text(
        comparison.page_path, render_comparison_page(comparison, dict(zip(titles, pictures.values(), strict=True)))
    )
    return comparison
