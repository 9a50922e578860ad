"""The files of a comparison: a table for people, one for programs, a page that needs nothing else, pictures."""

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

from tests.comparison.records import rights, write_failed, write_run
from thaw.comparison.compare import compare
from thaw.comparison.comparison import Comparison
from thaw.comparison.figures import MAX_CLASSES, select_most_different_classes, stack_curves
from thaw.comparison.records import read_runs
from thaw.comparison.tables import print_comparison

PICTURES = ["accuracy", "classes", "loss", "time"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    sweep = tmp_path_factory.mktemp("sweep")
    for number, rate in enumerate(("0.001", "0.01", "0.1")):
        for seed in range(3):
            right, name = rights(40, range(3 + 5 * number + seed)), f"{number}_rate={rate},seed={seed}"
            write_run(sweep / name, f"optimizer.learning_rate={rate}", seed=seed, right=right, val=0.9 - number / 10)
    write_failed(sweep / "9_strategy=<b>", "ValueError: <script>a|b*c")
    return compare([sweep], sweep)


def test_pictures_are_drawn(made: Comparison) -> None:
    files = sorted(made.output_dir.glob("comparison_*.png"))
    assert [file.stem.removeprefix("comparison_") for file in files] == PICTURES
    for file in files:
        with Image.open(file) as picture:
            assert np.asarray(picture.convert("L")).std() > 5


def test_the_csv_holds_the_numbers_in_full(made: Comparison) -> None:
    with (made.output_dir / "comparison.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["optimizer.learning_rate"] for row in rows] == ["0.001", "0.01", "0.1"]
    assert [float(row["test_accuracy"]) for row in rows] == pytest.approx([0.9, 0.775, 0.65])
    assert (rows[0]["is_reference"], rows[0]["p_adjusted"]) == ("True", "")
    assert made.configurations[1].paired_test is not None
    assert float(rows[1]["p_adjusted"]) == made.configurations[1].paired_test.adjusted_p_value
    assert rows[1]["seeds"] == "0 1 2"


def test_the_markdown_is_one_table_whatever_the_texts_hold(made: Comparison) -> None:
    text = (made.output_dir / "comparison.md").read_text()
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert len(table) == 5
    assert len({line.count("|") for line in table}) == 1
    assert "ValueError: &lt;script>a\\|b\\*c" in text
    assert all((made.output_dir / name).is_file() for name in re.findall(r"\]\(([^)]+)\)", text))


def test_the_page_needs_nothing_else(made: Comparison) -> None:
    text = made.page_path.read_text()
    assert re.findall(r'(?:src|href)="(?!data:)[^"]*"', text) == []
    assert text.count("data:image/png") == len(PICTURES)
    assert "&lt;script&gt;a|b*c" in text


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no chromium to open the page with")
def test_the_page_fits_a_telephone_and_its_table_can_be_sorted(made: Comparison, tmp_path: Path) -> None:
    measure = """<script>
        const names = [...document.querySelectorAll("thead th")];
        const fits = document.documentElement.scrollWidth <= innerWidth;
        const column = () => [...document.querySelectorAll("tbody tr")].map(row => row.cells[1].textContent.trim());
        names[1].click(); const rising = column().join(" ");
        names[1].click(); const falling = column().join(" ");
        parent.document.title = [innerWidth, fits, rising, falling].join(";");
    </script>"""
    (tmp_path / "page.html").write_text(made.page_path.read_text().replace("</body>", f"{measure}</body>"))
    outer = tmp_path / "outer.html"
    outer.write_text('<iframe src="page.html" style="width:390px;height:800px;border:0"></iframe>')
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files"]
    command = [shutil.which("chromium") or "", *options, "--virtual-time-budget=4000", "--dump-dom", outer.as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    title = re.search("<title>(.*?)</title>", shown)
    assert title is not None
    assert title[1] == "390;true;0.001 0.01 0.1;0.1 0.01 0.001"


@pytest.mark.parametrize(("columns", "left_out"), [(200, ()), (60, ("images/s", "trainable"))])
def test_the_screen_shows_the_table_and_says_what_it_has_no_room_for(
    columns: int,
    left_out: Sequence[str],
    made: Comparison,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich: as on a terminal
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("NO_COLOR", "1")
    print_comparison(made)
    said = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    assert "learning_rate" in said
    assert "0.900 ± 0.025" in said
    (heading,) = [line for line in said.splitlines() if "test accuracy" in line and "seeds" in line]
    assert all(name not in heading for name in left_out)
    assert f"everything is in {made.page_path}" in said
    assert (", ".join(left_out) in said) or not left_out


def test_curves_end_where_the_first_seed_ends(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "a", losses=(0.9, 0.5, 0.4)), write_run(tmp_path / "b", seed=1, losses=(0.7, 0.3))]
    assert stack_curves(read_runs(runs), "val_loss") == pytest.approx(np.array([[0.9, 0.5], [0.7, 0.3]]))
    without = [write_run(tmp_path / "c", val=None)]
    assert stack_curves(read_runs(without), "val_loss").shape == (1, 0)


def test_of_many_classes_the_most_different_are_shown() -> None:
    reference = {f"{number:02}": 0.5 for number in range(30)}
    other = {name: 0.5 + int(name) / 100 for name in reference}
    names = select_most_different_classes(reference, [other])
    assert (len(names), names[0]) == (MAX_CLASSES, "29")


def test_one_configuration_without_validation_is_still_a_comparison(tmp_path: Path) -> None:
    write_run(tmp_path / "only", val=None)
    made = compare([tmp_path / "only"], tmp_path / "out")
    assert "One configuration" in made.page_path.read_text()
    assert not (tmp_path / "out" / "comparison_accuracy.png").exists()
