"""Run directories -> comparison.md, .csv, .html and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thaw.comparison.compared import Comparison, compared
from thaw.comparison.figures import figures
from thaw.comparison.page import page_text
from thaw.comparison.runs import found_runs, read_runs
from thaw.comparison.tables import as_csv, as_markdown
from thaw.training.files import write_text, write_whole

TITLES = {
    "accuracy": "Validation accuracy by epoch",
    "loss": "Validation loss by epoch",
    "time": "Accuracy against time",
    "classes": "Classes: points above or below the reference",
}


def compare(directories: Sequence[Path], out: Path) -> Comparison:
    """Compares the runs that `directories` are or hold (sweeps, folders of runs) and writes comparison.md, .csv, .html
    and comparison_accuracy, _loss, _time and _classes.png, those there is something to draw for, into `out`.

    Raises:
        UserFault: where a directory is missing or holds no run, or no run is done. Nothing is written then.
    """
    comparison = compared(read_runs(found_runs(directories)), out)
    pictures = figures(comparison.configurations)
    files = {f"comparison_{name}.png": content for name, content in pictures.items()}
    titles = [TITLES[name] for name in pictures]
    out.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        write_whole(out / name, lambda stream, content=content: stream.write(content))  # type: ignore[misc]
    write_text(out / "comparison.csv", as_csv(comparison))
    write_text(out / "comparison.md", as_markdown(comparison, dict(zip(titles, files, strict=True))))
    write_text(comparison.page, page_text(comparison, dict(zip(titles, pictures.values(), strict=True))))
    return comparison
