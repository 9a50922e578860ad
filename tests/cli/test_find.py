"""`thaw find`, as a user types it."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import TINY, thaw


def test_help_names_the_finders(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert thaw(monkeypatch, "find", "--help") == 0
    assert thaw(monkeypatch, "find") == 0
    said = capsys.readouterr().out
    assert "learning_rate" in said
    assert "batch_size" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("learning_rat",), "thaw find learning_rate"),
        (("batchsize",), "thaw find batch_size"),
        (("learning_rate", "step=50"), "steps=50"),
        (("learning_rate", "higest=1"), "highest=1"),
        (("learning_rate", "steps=few"), "at least 25"),
        (("learning_rate", "steps=24"), "at least 25"),
        (("learning_rate", "lowest=0"), "above 0"),
        (("learning_rate", "highest=inf"), "above 0"),
        (("learning_rate", "lowest=1", "highest=0.1"), "highest=10"),
        (("learning_rate", "lowest=1", "highest=1"), "highest=10"),
        (("learning_rate", "optimizer.learning_rat=1"), "optimizer.learning_rate"),
        (("learning_rate", "optimzer=sgd"), "optimizer=sgd"),
        (("learning_rate", "-m", "seed=0,1"), "one recipe"),
        (("learning_rate", "resume=outputs/run"), "resume"),
        (("learning_rate", "trainer.devices=2"), "trainer.accumulate_grad_batches=2"),
        (("batch_size", "lowest=1"), "at least 2"),
        (("batch_size", "lowest=2.5"), "whole number"),
        (("batch_size", "lowest=64", "highest=32"), "nothing lies between"),
        (("batch_size", "steps=50"), "steps"),
    ],
)
def test_wrong_commands_end_with_2_and_what_to_type(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thaw(monkeypatch, "find", *arguments) == 2
    assert message in capsys.readouterr().err


def test_all_faults_of_the_finders_own_words_are_told_together(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert thaw(monkeypatch, "find", "learning_rate", "steps=1", "lowest=x", "hihest=3") == 2
    said = capsys.readouterr().err
    assert all(f"  {one}" in said for one in ("steps=1", "lowest=x", "hihest=3"))


def test_a_rate_is_suggested_and_its_losses_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("steps=40", "lowest=1e-5", "highest=1e-2", f"output_dir={tmp_path}")
    assert thaw(monkeypatch, "find", "learning_rate", *TINY, "strategy=fixed", *settings) == 0
    said = capsys.readouterr().out
    suggested = float(said.splitlines()[-1].removeprefix("optimizer.learning_rate="))
    assert 1e-5 < suggested < 1e-2
    assert f"{suggested:.1e}   recommended" in said
    (folder,) = tmp_path.iterdir()
    assert folder.name.startswith("find_learning_rate_captcha")
    assert sorted(file.name for file in folder.iterdir()) == ["learning_rate.csv", "learning_rate.png"]
    with (folder / "learning_rate.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["step"]) for row in rows] == list(range(1, 41))
    assert float(rows[0]["learning_rate"]) == pytest.approx(1e-5)
    assert float(rows[-1]["learning_rate"]) == pytest.approx(1e-2)
    assert float(rows[-1]["smoothed_loss"]) < float(rows[0]["smoothed_loss"])
    with Image.open(folder / "learning_rate.png") as picture:
        assert min(picture.size) > 300


def test_where_the_loss_does_not_fall_no_rate_is_suggested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = ("steps=25", "lowest=1e-12", "highest=1e-11", f"out={tmp_path / 'out'}", f"output_dir={tmp_path}")
    assert thaw(monkeypatch, "find", "learning_rate", *TINY, *settings) == 1
    assert "no rate is suggested" in capsys.readouterr().out
    assert sorted(one.name for one in tmp_path.iterdir()) == ["out"]


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
    settings = ("lowest=8", "highest=8", "trainer.batch_size=2", f"output_dir={tmp_path}")
    assert thaw(monkeypatch, "find", "batch_size", *TINY, *optimizer, *settings) == 0
    said = capsys.readouterr().out
    assert "trainer.batch_size=8" in said.splitlines()
    assert advice in said
    assert list(tmp_path.iterdir()) == []
