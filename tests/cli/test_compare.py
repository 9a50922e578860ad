"""`thaw compare`, as a user types it, on a sweep that was trained."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import TINY, run_thaw
from thaw.cli.train import launch

SWEEP = (*TINY, "trainer.epochs=2", "strategy=fixed")


@pytest.fixture(scope="module")
def sweep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rates, and one at which the loss does not stay finite."""
    outputs = tmp_path_factory.mktemp("outputs")
    rates = "optimizer=sgd", "optimizer.learning_rate=0.01,0.1,1e30"
    assert launch(["-m", *SWEEP, *rates, f"output_dir={outputs}"]) == 1
    (folder,) = outputs.iterdir()
    return folder


def test_a_sweep_is_compared_in_its_own_folder(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "compare", str(sweep)) == 0
    output = capsys.readouterr().out
    assert f"everything is in {sweep / 'comparison.html'}" in output
    assert output.count("failed") == 2, "once in the caution, once with its reason"
    assert "the loss is not finite" in output
    with (sweep / "comparison.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert sorted(row["optimizer.learning_rate"] for row in rows) == ["0.01", "0.1"]
    assert {row["seeds"] for row in rows} == {"0"}
    assert {row["p_over"] for row in rows} == {"", "images"}


def test_runs_are_compared_in_a_new_folder(
    sweep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    runs = sorted(str(path.parent) for path in sweep.glob("*/metrics.json"))
    assert run_thaw(monkeypatch, "compare", *runs) == 0
    assert run_thaw(monkeypatch, "compare", *runs, "out=here") == 0
    (page,) = (tmp_path / "outputs").glob("comparison_*/comparison.html")
    assert (tmp_path / "here" / "comparison.md").is_file()
    assert str(page.relative_to(tmp_path)) in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        (["outputz"], ["no such folder", "fix:   outputs"]),
        (["outputs"], ["no run.json in it or below"]),
        (["outputs", "seed=1"], ["no such setting", "out="]),
        (["out=there"], ["no DIR..."]),
        (["outputs", "out="], ["out=VALUE"]),
        (["--ot", "outputs"], ["no such option", "--out VALUE"]),
    ],
)
def test_wrong_commands_end_with_2_and_show_the_problem(
    arguments: list[str],
    messages: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "outputs").mkdir()
    assert run_thaw(monkeypatch, "compare", *arguments) == 2
    output = capsys.readouterr().err
    assert [message for message in messages if message not in output] == []
    assert list((tmp_path / "outputs").iterdir()) == []


def test_comparing_imports_no_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_thaw(monkeypatch, "compare", "--help") == 0
    assert "thaw compare DIR" in capsys.readouterr().out
    code = "import sys, thaw.cli.compare, thaw.comparison.comparison; print(*sys.modules)"
    loaded_modules = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    assert {"torch", "pytorch_lightning"}.isdisjoint(loaded_modules)
