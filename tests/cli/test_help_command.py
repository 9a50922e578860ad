"""`thaw help` explains keys, groups, choices and verbs without torch."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import run_thaw
from thaw.cli.help import explain
from thaw.config.catalog import list_group_choices
from thaw.config.errors import UserError
from thaw.config.reference import DICT_KEY, describe_keys


@pytest.mark.parametrize(
    ("topic", "phrases"),
    {
        "trainer.epochs": ["Epochs of the whole training", "integer", "greater than 0", "default:  4", "conf/trainer/"],
        "strategy": ["strategy=CHOICE", "Train all stages from random weights", "strategy.phases.NAME.train"],
        "strategy=fixed": ["only the head is trained", "conf/strategy/fixed.yaml", "init: pretrained"],
        "strategy.phases.head.train": ["strategy.phases.NAME.train", "list of text"],
        "head.dropout": ["(linear, cosine, source_rows)", "(mlp)"],
        "trainer.early_stopping": ["trainer.early_stopping.patience"],
        "evaluate": ["thaw evaluate RUN", "--split"],
    }.items(),
)
def test_a_topic_is_explained(
    topic: str, phrases: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_thaw(monkeypatch, "help", topic) == 0
    output = capsys.readouterr().out
    assert [phrase for phrase in phrases if phrase not in output] == []
    assert max(map(len, output.splitlines())) <= 120


@pytest.mark.parametrize(
    ("topic", "nearest"),
    {
        "epochs": "trainer.epochs",
        "lr": "optimizer.learning_rate",
        "trainer.epohcs": "trainer.epochs",
        "strategy=linear_probe": "strategy=fixed",
        "stratgy": "strategy",
    }.items(),
)
def test_a_wrong_topic_is_answered_with_the_nearest(topic: str, nearest: str) -> None:
    with pytest.raises(UserError) as caught:
        explain(topic)
    (problem,) = caught.value.problems
    assert problem.fix == f"thaw help {nearest}"


def test_every_key_group_and_choice_is_explained() -> None:
    for row in describe_keys():
        assert explain(row.key.replace(DICT_KEY, "any")) or row.key in list_group_choices()
    for group, choices in list_group_choices().items():
        for topic in (group, *(f"{group}={choice}" for choice in choices)):
            assert explain(topic)


def test_help_imports_no_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "thaw", "help", "trainer.epochs"]
    process = subprocess.run(command, capture_output=True, text=True, check=True)
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in process.stderr.splitlines()}
    assert "thaw" in modules
    assert {"torch", "matplotlib", "timm"}.isdisjoint(modules)
