"""The help of train.py, which is printed without composing a configuration."""

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import run_train_script

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def help_text() -> str:
    command, environment = [sys.executable, "train.py", "--help"], {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("group", sorted({file.parent.name for file in (ROOT / "conf").glob("*/*.yaml")}))
def test_help_lists_every_choice_of_the_group(group: str, help_text: str) -> None:
    (line,) = [line for line in help_text.splitlines() if line.startswith(f"{group}: ")]
    choices = set(line.removeprefix(f"{group}: ").split(", "))
    assert choices == {file.stem for file in (ROOT / "conf" / group).glob("*.yaml")}


def test_help_shows_commands_to_start_from(help_text: str) -> None:
    for command in ("python train.py -m strategy=", "python train.py resume=", "dataset.root=DIR"):
        assert command in help_text


def test_help_has_no_placeholder_left(help_text: str) -> None:
    assert "$" not in help_text


def test_help_is_the_text_that_hydra_prints(help_text: str) -> None:
    assert run_train_script("--help", "seed=1").stdout == help_text


@pytest.mark.parametrize("command", [["train.py", "--help"], ["-m", "thaw", "--help"], ["-m", "thaw", "train", "-h"]])
def test_help_takes_less_than_a_second_and_imports_no_slow_library(command: list[str]) -> None:
    importtime = [sys.executable, "-X", "importtime", *command]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(importtime, cwd=ROOT, capture_output=True, text=True, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # A single thread: on a free core its time is the time that passes.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 1
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in run.stderr.splitlines()}
    assert {"thaw", "click"} <= modules
    assert {"torch", "hydra", "omegaconf", "pydantic", "rich", "numpy"}.isdisjoint(modules)


def test_a_config_is_printed_with_keys_that_its_file_leaves_out_and_before_it_is_complete() -> None:
    run = run_train_script("--cfg", "job", "head.rows.A=ant", "dataset=folder")
    assert run.returncode == 0, run.stderr
    assert "A: ant" in run.stdout
    assert "root: ???" in run.stdout
