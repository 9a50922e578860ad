"""The benchmarks run; what they measure is for a quiet machine."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks import finetune, frozen, heads, reproduce, steps, strategies
from benchmarks import input as benchmark_input
from benchmarks import sweep as benchmark_sweep
from tests.conftest import ROOT, TINY
from tests.images import write_image_folder


@pytest.mark.long
def test_a_step_of_each_strategy_is_measured_beside_one_of_finetune(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "STEPS", 2)
    steps.main([*TINY])
    rows = re.findall(r"^(\w+(?:, cached)?) +[\d.]+ +([\d.]+) x$", capsys.readouterr().out, re.MULTILINE)
    assert [name for name, _ in rows] == list(steps.STRATEGIES)
    assert dict(rows)["finetune"] == "1.00"


def test_the_plain_loop_takes_turns_with_a_run(capsys: pytest.CaptureFixture[str]) -> None:
    finetune.main([*TINY, "trainer.epochs=3"])
    assert re.search(r"[\d.]+ images/s, plain loop [\d.]+ images/s", capsys.readouterr().out)


@pytest.mark.long
def test_a_sweep_over_strategies_and_seeds_becomes_a_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(strategies, "STRATEGIES", ("scratch", "fixed"))
    monkeypatch.setattr(strategies, "RECIPE", (*TINY, "trainer.epochs=1", "seed=0,1"))
    assert strategies.main([]) == 0
    rows = re.findall(
        r"^\| `(\w+)` \| [\d.]+ ± [\d.]+ \| [\d.]+, [\d.]+ \| \d+ \|$", capsys.readouterr().out, re.MULTILINE
    )
    assert rows == ["scratch", "fixed"]


def test_every_strategy_file_is_in_the_table() -> None:
    assert set(strategies.STRATEGIES) == {file.stem for file in (ROOT / "conf" / "strategy").glob("*.yaml")}


def test_input_is_timed_beside_a_training_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"SIZE": 32, "BATCH": 4, "EPOCHS": 1, "configure_process": lambda *_: None}
    for name, value in small.items():
        monkeypatch.setattr(benchmark_input, name, value)
    root = write_image_folder(tmp_path, {"train": 10}, classes=("ants", "bees")) / "train"
    monkeypatch.setattr("sys.argv", ["input", "--root", str(root)])
    benchmark_input.main()
    assert re.search(r"on real input [\d.]+: [\d.]+ of it", capsys.readouterr().out)


def test_a_grid_of_heads_takes_turns_with_one(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads, "ROUNDS", 1)
    heads.main([*TINY])
    said = capsys.readouterr().out
    assert re.search(r"108 heads \d+ ms: [\d.]+ x the time of one", said)
    assert re.search(r"its test accuracy [\d.]+, 95 % interval", said)


@pytest.mark.long
def test_a_plain_loop_takes_turns_with_runs_on_cached_features(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen, "ROUNDS", 1)
    monkeypatch.setattr(frozen, "available_cpus", lambda: 0)
    frozen.main([*TINY, "dataset=captcha", "trainer.epochs=2"])
    said = capsys.readouterr().out
    assert re.search(r"plain loop, 2 epochs +[\d.]+ s +test accuracy [\d.]+", said)
    assert re.search(r"faster than the plain loop: first run [\d.]+ times, second [\d.]+ times", said)


@pytest.mark.long
def test_a_sweep_is_held_against_its_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    benchmark_sweep.main([*TINY, "trainer.epochs=1", "seed=0", "strategy=scratch,fixed"])
    assert re.search(r"^2 jobs, .*\n.* the sweep takes [\d.]+ times as long$", capsys.readouterr().out, re.MULTILINE)


@pytest.mark.long
def test_experiments_that_can_be_run_stand_beside_their_published_numbers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("THAW_CACHE", str(tmp_path / "cache"))
    root = write_image_folder(tmp_path / "data", {"train": 6, "val": 3}, classes=("ants", "bees"))
    small = ("dataset.image_size=32", "trainer.epochs=1", "trainer.accelerator=cpu", "trainer.threads=1")
    arguments = ["hymenoptera_fixed", "hotdog_fixed", "--lite", "--seeds=0,1", f"--root=hymenoptera={root}", *small]
    assert reproduce.main(arguments) == 0
    assert reproduce.main(["hymenoptera_finetune", "--root", f"hymenoptera={root}", *small]) == 0
    said = capsys.readouterr().out
    number = r"\d\.\d{3}"
    ours = rf"accuracy {number} ± {number} \(2 seeds, {number} to {number} by 6 images\)"
    row = rf"^\| `hymenoptera_fixed` \| accuracy 0\.948 to 0\.961 \| {ours} \| \S+ \| tf_efficientnet_lite0 in"
    assert re.search(row, said, re.MULTILINE)
    assert f"hotdog.zip as {tmp_path / 'cache' / 'downloads' / 'hotdog.zip'}" in said
    assert f"resnet18-f37072fd.pth as {tmp_path / 'cache' / 'weights'}" in said


def test_every_benchmark_is_tested_here() -> None:
    files = {file.stem for file in (ROOT / "benchmarks").glob("*.py")} - {"__init__"}
    assert files == {"finetune", "frozen", "heads", "input", "reproduce", "steps", "strategies", "sweep"}
