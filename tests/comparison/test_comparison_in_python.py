"""A comparison in Python and in notebooks: data frames, text, HTML, and nothing written unless asked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.comparison.records import build_correct, write_failed_run, write_run
from thaw.comparison.comparison import build_comparison, compare
from thaw.runs.run import Run, open_run
from thaw.system.reporter import ConsoleReporter


@pytest.fixture
def runs(tmp_path: Path) -> list[Run]:
    directories = [
        write_run(tmp_path / f"{strategy}{seed}", f"strategy={strategy}", seed=seed, correct=build_correct(20, wrong))
        for strategy, wrong in (("fixed", [0, 1]), ("scratch", [0, 1, 2, 4]))
        for seed in (0, 1)
    ]
    return [open_run(directory) for directory in directories]


def test_tables_are_data_frames(runs: list[Run]) -> None:
    pandas = pytest.importorskip("pandas")
    comparison = build_comparison(runs)
    assert all(
        isinstance(table, pandas.DataFrame)
        for table in (comparison.configurations, comparison.runs, comparison.classes)
    )
    assert comparison.configurations["strategy"].tolist() == ["fixed", "scratch"]
    assert comparison.configurations["test_accuracy"].tolist() == pytest.approx([0.9, 0.8])
    assert comparison.configurations["difference"].tolist()[1] == pytest.approx(-0.1)
    assert comparison.runs["seed"].tolist() == [0, 1, 0, 1]
    scratch = comparison.classes[comparison.classes["configuration"] == "scratch"]
    assert dict(zip(scratch["class"], scratch["accuracy"], strict=True)) == pytest.approx({"ants": 0.7, "bees": 0.9})
    assert scratch["difference"].tolist() == pytest.approx([-0.2, 0.0])


def test_tables_are_lists_without_pandas(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    comparison = build_comparison(runs)
    assert [row["strategy"] for row in comparison.configurations] == ["fixed", "scratch"]
    assert len(comparison.runs) == 4
    assert comparison.classes[0] == {"configuration": "fixed", "class": "ants", "accuracy": 0.9, "difference": 0.0}


def test_a_run_that_is_not_done_is_a_row_with_its_reason(runs: list[Run], tmp_path: Path) -> None:
    write_failed_run(tmp_path / "failed", "no GPU.")
    (row,) = [row for row in build_comparison(tmp_path).runs.to_dict("records") if row["status"] == "failed"]
    assert (row["run"], row["reason"], row["directory"]) == ("failed", "no GPU.", str(tmp_path / "failed"))


def test_it_takes_runs_paths_and_folders_of_runs(runs: list[Run], tmp_path: Path) -> None:
    expected = repr(build_comparison(runs))
    assert repr(build_comparison(tmp_path)) == expected
    assert repr(build_comparison(str(tmp_path))) == expected
    assert repr(build_comparison([run.directory for run in runs])) == expected
    assert repr(build_comparison([*runs, tmp_path])) == expected
    assert len(build_comparison(runs[0]).runs) == 1


def test_it_writes_and_prints_nothing_until_it_is_saved(
    runs: list[Run], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths_before = sorted(tmp_path.rglob("*"))
    comparison = build_comparison(runs)
    assert comparison.caveats == []
    assert any("McNemar" in note for note in comparison.notes)
    repr(comparison)
    assert sorted(tmp_path.rglob("*")) == paths_before
    page_path = comparison.save(tmp_path / "out")
    assert page_path == tmp_path / "out" / "comparison.html"
    assert page_path.is_file()
    compare(runs, tmp_path / "other")
    assert capsys.readouterr() == ("", "")
    compare(runs, tmp_path / "other", ConsoleReporter())
    assert repr(comparison) in capsys.readouterr().out


def test_its_text_is_the_table_with_caveats_and_notes(runs: list[Run]) -> None:
    comparison = build_comparison(runs)
    lines = repr(comparison).splitlines()
    assert lines[0] == "captcha · tf_efficientnet_lite0"
    assert lines[1].startswith("Undecided: fixed 0.900 against ")
    heading_index = next(index for index, line in enumerate(lines) if line.split()[:2] == ["strategy", "seeds"])
    assert [line.split()[0] for line in lines[heading_index + 1 : heading_index + 3]] == ["fixed", "scratch"]
    assert "\x1b" not in repr(comparison)
    assert "The reference is the best configuration" in repr(comparison)


def test_a_notebook_shows_the_table(runs: list[Run]) -> None:
    html = build_comparison(runs)._repr_html_()
    assert html.count("<tr") == 3
    assert "0.900 ± 0.000" in html
    assert "<html" not in html


def test_its_markdown_has_no_figures(runs: list[Run]) -> None:
    markdown = build_comparison(runs).to_markdown()
    assert markdown.startswith("# Comparison: captcha")
    assert "![" not in markdown
    assert "| fixed |" in markdown
