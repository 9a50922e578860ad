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
    run = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("group", sorted({file.parent.name for file in (ROOT / "conf").glob("*/*.yaml")}))
def test_help_lists_every_choice_of_the_group(group: str, help_text: str) -> None:
    (line,) = [line for line in help_text.splitlines() if line.startswith(f"{group}: ")]
    listed = set(line.removeprefix(f"{group}: ").split(", "))
    assert listed == {file.stem for file in (ROOT / "conf" / group).glob("*.yaml")}


def test_help_shows_commands_to_start_from(help_text: str) -> None:
    for command in ("python train.py -m strategy=", "python train.py resume=", "dataset.root=DIR"):
        assert command in help_text


def test_help_has_no_placeholder_left(help_text: str) -> None:
    assert "$" not in help_text


def test_a_config_is_printed_with_keys_that_its_file_leaves_out_and_before_it_is_complete() -> None:
    told = typed("--cfg", "job", "head.rows.A=ant", "dataset=folder")
    assert told.returncode == 0, told.stderr
    assert "A: ant" in told.stdout
    assert "root: ???" in told.stdout
