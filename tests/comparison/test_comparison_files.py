"""The files of a comparison: a table for people, one for programs, a page in one file, figures."""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.comparison.records import build_correct, write_failed_run, write_run
from thaw.comparison.comparison import Comparison, build_comparison
from thaw.comparison.figures import MAX_CLASSES, select_most_different_classes, stack_curves
from thaw.comparison.records import find_runs, read_results
from thaw.comparison.tables import report_comparison
from thaw.system.reporter import ConsoleReporter

FIGURES = ["accuracy", "classes", "loss", "time"]


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    sweep = tmp_path_factory.mktemp("sweep")
    for index, rate in enumerate(("0.001", "0.01", "0.1")):
        for seed in range(3):
            correct = build_correct(40, range(3 + 5 * index + seed))
            directory = sweep / f"{index}_rate={rate},seed={seed}"
            overrides, val_accuracy = f"optimizer.learning_rate={rate}", 0.9 - index / 10
            write_run(directory, overrides, seed=seed, correct=correct, val_accuracy=val_accuracy)
    write_failed_run(sweep / "9_strategy=<b>", "ValueError: <script>a|b*c")
    return build_comparison(sweep)


@pytest.fixture(scope="module")
def page_path(comparison: Comparison, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return comparison.save(tmp_path_factory.mktemp("comparison"))


def test_figures_are_drawn(page_path: Path) -> None:
    files = sorted(page_path.parent.glob("comparison_*.png"))
    assert [file.stem.removeprefix("comparison_") for file in files] == FIGURES
    for file in files:
        with Image.open(file) as image:
            assert np.asarray(image.convert("L")).std() > 5


def test_the_csv_holds_the_numbers_in_full(comparison: Comparison, page_path: Path) -> None:
    with (page_path.parent / "comparison.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["optimizer.learning_rate"] for row in rows] == ["0.001", "0.01", "0.1"]
    assert [float(row["test_accuracy"]) for row in rows] == pytest.approx([0.9, 0.775, 0.65])
    assert (rows[0]["is_reference"], rows[0]["p_adjusted"]) == ("True", "")
    assert comparison.results.configurations[1].paired_test is not None
    assert float(rows[1]["p_adjusted"]) == comparison.results.configurations[1].paired_test.adjusted_p_value
    assert rows[1]["seeds"] == "0 1 2"


def test_the_markdown_is_two_tables_whatever_the_texts_hold(page_path: Path) -> None:
    text = (page_path.parent / "comparison.md").read_text()
    for part in text.split("## More metrics of the test images"):
        table = [line for line in part.splitlines() if line.startswith("|")]
        assert len(table) == 5
        assert len({line.count("|") for line in table}) == 1
    assert "ValueError: &lt;script>a\\|b\\*c" in text
    assert all((page_path.parent / name).is_file() for name in re.findall(r"\]\(([^)]+)\)", text))


def test_the_page_is_one_file(page_path: Path) -> None:
    text = page_path.read_text()
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', text) == []
    assert text.count("data:image/png") == len(FIGURES)
    assert "&lt;script&gt;a|b*c" in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to open the page with")
def test_the_page_fits_a_telephone_and_its_table_can_be_sorted(page_path: Path, tmp_path: Path) -> None:
    measure = """<script>
        const table = document.querySelector("table");
        const names = [...table.tHead.rows[0].cells];
        const fits = document.documentElement.scrollWidth <= innerWidth;
        const column = () => [...table.tBodies[0].rows].map(row => row.cells[1].textContent.trim());
        names[1].click(); const rising = column().join(" ");
        names[1].click(); const falling = column().join(" ");
        parent.document.title = [innerWidth, fits, rising, falling].join(";");
    </script>"""
    (tmp_path / "page.html").write_text(page_path.read_text().replace("</body>", f"{measure}</body>"))
    outer = tmp_path / "outer.html"
    outer.write_text('<iframe src="page.html" style="width:390px;height:800px;border:0"></iframe>')
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command = [shutil.which("chromium") or "", *options, "--virtual-time-budget=4000", "--dump-dom", outer.as_uri()]
    document = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    title = re.search("<title>(.*?)</title>", document)
    assert title is not None
    assert title[1] == "390;true;0.001 0.01 0.1;0.1 0.01 0.001"


@pytest.mark.parametrize(("num_columns", "hidden_headings"), [(200, ()), (60, ("images/s", "trainable"))])
def test_the_screen_shows_the_table_and_names_the_columns_that_do_not_fit(
    num_columns: int,
    hidden_headings: Sequence[str],
    comparison: Comparison,
    page_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich: as on a terminal
    monkeypatch.setenv("COLUMNS", str(num_columns))
    monkeypatch.setenv("NO_COLOR", "1")
    report_comparison(comparison.groups, page_path, ConsoleReporter())
    output = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "learning_rate" in output
    assert "0.900 ± 0.025" in output
    (heading,) = [line for line in output.splitlines() if "test accuracy" in line and "seeds" in line]
    assert all(name not in heading for name in hidden_headings)
    assert f"everything is in {page_path}" in output
    assert (", ".join(hidden_headings) in output) or not hidden_headings


def test_curves_end_where_the_first_seed_ends(tmp_path: Path) -> None:
    write_run(tmp_path / "a" / "0", val_losses=(0.9, 0.5, 0.4))
    write_run(tmp_path / "a" / "1", seed=1, val_losses=(0.7, 0.3))
    curves = stack_curves(read_results(find_runs([tmp_path / "a"])), "val_loss")
    assert curves == pytest.approx(np.array([[0.9, 0.5], [0.7, 0.3]]))
    write_run(tmp_path / "b", val_accuracy=None)
    assert stack_curves(read_results(find_runs([tmp_path / "b"])), "val_loss").shape == (1, 0)


def test_the_figure_of_many_classes_shows_the_most_different_ones() -> None:
    reference = {f"{number:02}": 0.5 for number in range(30)}
    other = {name: 0.5 + int(name) / 100 for name in reference}
    names = select_most_different_classes(reference, [other])
    assert (len(names), names[0]) == (MAX_CLASSES, "29")


def test_one_configuration_without_validation_is_still_a_comparison(tmp_path: Path) -> None:
    write_run(tmp_path / "only", val_accuracy=None)
    page_path = build_comparison(tmp_path / "only").save(tmp_path / "out")
    assert "One configuration" in page_path.read_text()
    assert not (tmp_path / "out" / "comparison_accuracy.png").exists()
