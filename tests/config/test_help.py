import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import typed

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def help_text() -> str:
    command, environment = [sys.executable, "train.py", "--help"], {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    process = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.parametrize("group", sorted({file.parent.name for file in (ROOT / "conf").glob("*/*.yaml")}))
def test_help_lists_every_choice_of_the_group(group: str, help_text: str) -> None:
    (line,) = [line for line in help_text.splitlines() if line.startswith(f"{group}: ")]
    listed_choices = set(line.removeprefix(f"{group}: ").split(", "))
    assert listed_choices == {file.stem for file in (ROOT / "conf" / group).glob("*.yaml")}


def test_help_shows_example_commands(help_text: str) -> None:
    for command in ("python train.py -m strategy=", "python train.py resume=", "dataset.root=DIR"):
        assert command in help_text


def test_help_has_no_placeholder_left(help_text: str) -> None:
    assert "$" not in help_text


def test_an_incomplete_configuration_with_additional_keys_is_printed() -> None:
    process = typed("--cfg", "job", "head.rows.A=ant", "dataset=folder")
    assert process.returncode == 0, process.stderr
    assert "A: ant" in process.stdout
    assert "root: ???" in process.stdout
