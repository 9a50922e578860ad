"""What the README promises of whole trainings. Minutes each: `make test-long`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import get_only_run, run_train_script

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def test_the_default_command_learns_the_captcha_characters(tmp_path: Path) -> None:
    assert run_train_script(f"output_dir={tmp_path}").returncode == 0
    (accuracy,) = accuracies_below(tmp_path)
    assert accuracy >= 0.92


def test_captchas_of_four_characters_are_read(tmp_path: Path) -> None:
    """By a network that learned from single characters, 50 a class."""
    assert run_train_script(f"output_dir={tmp_path}").returncode == 0
    run, drawn = get_only_run(tmp_path), tmp_path / "captchas"
    assert thaw("data", "captchas", f"out={drawn}", "count=200").returncode == 0
    told = thaw("predict", str(run), str(drawn), "--captcha")
    assert told.returncode == 0
    strings = re.search(r"entirely right: ([\d.]+) of 200", told.stdout)
    expected = re.search(r"to the power of 4, .*: ([\d.]+)", told.stdout)
    assert strings and expected  # noqa: PT018
    assert float(strings[1]) >= 0.72
    assert abs(float(strings[1]) - float(expected[1])) <= 0.04


def thaw(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "thaw.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_scratch_is_below_fixed_is_below_finetune(tmp_path: Path) -> None:
    assert run_train_script("-m", "strategy=scratch,fixed,finetune", f"output_dir={tmp_path}").returncode == 0
    scratch, fixed, finetune = accuracies_below(tmp_path)
    assert scratch < fixed < finetune


def accuracies_below(outputs: Path) -> list[float]:
    """Test accuracies of all runs, in the order of their folders' names."""
    files = sorted(outputs.rglob("metrics.json"))
    return [json.loads(file.read_text())["test"]["accuracy"] for file in files]
