"""`thaw lr-find` and `thaw batch-size`, as a user types them."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import TINY, run_thaw


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("lr-find", "step=50"), "steps=50"),
        (("lr-find", "max_l=1"), "max_lr=1"),
        (("lr-find", "--max-l", "1"), "--max-lr VALUE"),
        (("lr-find", "steps=few"), "at least 25"),
        (("lr-find", "--steps", "24"), "at least 25"),
        (("lr-find", "min_lr=0"), "above 0"),
        (("lr-find", "max_lr=inf"), "above 0"),
        (("lr-find", "min_lr=1", "max_lr=0.1"), "--max-lr 10"),
        (("lr-find", "min_lr=1", "max_lr=1"), "--max-lr 10"),
        (("lr-find", "optimizer.learning_rat=1"), "optimizer.learning_rate"),
        (("lr-find", "optimzer=sgd"), "optimizer=sgd"),
        (("lr-find", "-m", "seed=0,1"), "one recipe"),
        (("lr-find", "resume=outputs/run"), "resume"),
        (("lr-find", "trainer.devices=2"), "trainer.accumulate_grad_batches=2"),
        (("batch-size", "min_batch_size=1"), "at least 2"),
        (("batch-size", "min_batch_size=2.5"), "whole number"),
        (("batch-size", "min_batch_size=64", "max_batch_size=32"), "no batch sizes between them"),
        (("batch-size", "steps=50"), "steps"),
    ],
)
def test_wrong_commands_end_with_2_and_show_the_fix(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, *arguments) == 2
    assert message in capsys.readouterr().err


def test_all_problems_of_the_options_are_reported_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "lr-find", "steps=1", "min_lr=x", "mx_lr=3") == 2
    error = capsys.readouterr().err
    assert all(f"  {subject}" in error for subject in ("steps=1", "min_lr=x", "mx_lr=3"))


@pytest.mark.parametrize(
    ("arguments", "fix"),
    [
        ("learning_rate lowest=1e-6 steps=50 strategy=fixed", "thaw lr-find --min-lr 1e-6 --steps 50 strategy=fixed"),
        ("batch_size highest=64", "thaw batch-size --max-batch-size 64"),
        ("", "thaw lr-find"),
    ],
)
def test_the_old_verb_find_is_answered_with_the_new_command(
    arguments: str, fix: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "find", *arguments.split()) == 2
    assert f"fix:   {fix}\n" in capsys.readouterr().err


def test_a_rate_is_suggested_and_the_losses_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("steps=40", "min_lr=1e-5", "--max-lr=1e-2", f"output_dir={tmp_path}")
    assert run_thaw(monkeypatch, "lr-find", *TINY, "strategy=fixed", *settings) == 0
    output = capsys.readouterr().out
    suggested_rate = float(output.splitlines()[-1].removeprefix("optimizer.learning_rate="))
    assert 1e-5 < suggested_rate < 1e-2
    assert f"{suggested_rate:.1e}   recommended" in output
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("lr_find_captcha")
    assert sorted(file.name for file in folder.iterdir()) == ["learning_rate.csv", "learning_rate.png"]
    with (folder / "learning_rate.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(range(1, 41))
    assert float(rows[0]["learning_rate"]) == pytest.approx(1e-5)
    assert float(rows[-1]["learning_rate"]) == pytest.approx(1e-2)
    assert float(rows[-1]["smoothed_loss"]) < float(rows[0]["smoothed_loss"])
    with Image.open(folder / "learning_rate.png") as plot:
        assert min(plot.size) > 300


def test_no_rate_is_suggested_if_the_loss_does_not_fall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("steps=25", "min_lr=1e-12", "max_lr=1e-11", f"out={tmp_path / 'out'}", f"output_dir={tmp_path}")
    assert run_thaw(monkeypatch, "lr-find", *TINY, *settings) == 1
    assert "no rate is suggested" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"]


@pytest.mark.parametrize(
    ("optimizer", "advice"),
    [
        (("optimizer=sgd", "optimizer.learning_rate=0.01"), "optimizer.learning_rate=0.04 by a rule of thumb (linear"),
        (("optimizer=adam", "optimizer.learning_rate=0.01"), "optimizer.learning_rate=0.02 by a rule of thumb (square"),
        (("optimizer=torch", "optimizer.name=Adagrad"), "no rule for the learning rate of Adagrad"),
    ],
)
def test_a_batch_size_is_suggested_with_advice_on_the_rate(
    optimizer: tuple[str, ...],
    advice: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    settings = ("min_batch_size=8", "max_batch_size=8", "trainer.batch_size=2", f"output_dir={tmp_path}")
    assert run_thaw(monkeypatch, "batch-size", *TINY, *optimizer, *settings) == 0
    output = capsys.readouterr().out
    assert "trainer.batch_size=8" in output.splitlines()
    assert advice in output
    assert list(tmp_path.iterdir()) == []
