"""Tables fit the terminal: at 80 columns with long names, and no number is cut."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.comparison.records import write_run
from thaw.cli.predict import fit_cells
from thaw.cli.table import Column, print_table
from thaw.comparison.comparison import build_comparison
from thaw.comparison.tables import report_comparison
from thaw.models.network import StageFacts
from thaw.strategy.plan import PartPlan, PhasePlan, Plan
from thaw.system.reporter import ConsoleReporter
from thaw.system.tables import measure_width
from thaw.visualization.reports.console import print_plan

LONG_NAME = "a_stage_of_a_network.with_a_name_that_is_as_long_as_a_module_path.blocks"


@pytest.fixture(params=[80, 120])
def num_columns(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")  # rich: as on a terminal
    monkeypatch.setenv("COLUMNS", str(request.param))
    monkeypatch.setenv("NO_COLOR", "1")
    return int(request.param)


def read_lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out).splitlines()


def build_plan() -> tuple[list[StageFacts], Plan]:
    facts = [StageFacts(f"{LONG_NAME}_{index}", (1280, 112, 112), 123_456_789) for index in range(2)]
    parts = tuple(PartPlan(stage.name, True, 1.23e-05, 0.0005, "statistics", "biases") for stage in facts)
    return facts, Plan((PhasePlan("all", 0, 4, parts, (0, 4)),))


def test_a_plan_fits(num_columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    facts, plan = build_plan()
    print_plan(ConsoleReporter(), facts, plan, {"total": 10**9, "trainable": 10**8})
    lines = read_lines(capsys)
    assert max(map(measure_width, lines)) <= num_columns
    text = "\n".join(lines)
    assert text.count("123,456,789") == len(facts)
    assert text.count("1.23e-05") == len(facts)
    assert "…" in text
    assert "_0 " in text, "the ends of names stay"
    assert "_1 " in text


def test_a_table_of_a_verb_fits_and_folds_names(num_columns: int, capsys: pytest.CaptureFixture[str]) -> None:
    columns = [Column("class"), *(Column(f"number {index}", is_numeric=True) for index in range(4)), Column("remark")]
    rows = [[LONG_NAME * 2, *["0.123 to 0.456"] * 3, "1,234,567", "a remark of many words that is long"]]
    print_table(columns, rows)
    lines = read_lines(capsys)
    assert max(map(measure_width, lines)) <= num_columns
    assert "\n".join(lines).count("0.123 to 0.456") == 3
    assert "1,234,567" in "\n".join(lines)


def test_a_comparison_fits(num_columns: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index, name in enumerate(("vit_small_patch16_224.augreg_in21k_ft_in1k", "resnet50.a1_in1k")):
        for seed in range(3):
            overrides = "backbone=timm", f"backbone.name={name}", f"strategy={('fixed', 'first_layers')[index]}"
            write_run(tmp_path / f"{index}_{seed}", *overrides, seed=seed)
    report_comparison(build_comparison(tmp_path).groups, Path("page.html"), ConsoleReporter())
    lines = [line for line in read_lines(capsys) if not line.startswith("everything is in")]
    assert max(map(measure_width, lines)) <= num_columns
    assert sum("0.900 ± 0.000" in line for line in lines) == 2


def test_predictions_fit(num_columns: int) -> None:
    cells = ["photos/" + "deep/" * 40 + "image_7.jpg", *[f"{LONG_NAME} 0.123"] * 3]
    fitting = fit_cells(cells, num_columns)
    assert measure_width("  ".join(fitting)) <= num_columns
    assert fitting[0].endswith(".jpg")
    assert all(cell.endswith(" 0.123") for cell in fitting[1:])
