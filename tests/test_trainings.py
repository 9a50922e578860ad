"""Whole trainings reach the accuracies of the README. They take minutes each: `make test-long`."""

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
    (accuracy,) = read_test_accuracies(tmp_path)
    assert accuracy >= 0.92


def test_captchas_of_four_characters_are_read(tmp_path: Path) -> None:
    """The network has learned from single characters, 50 per class."""
    assert run_train_script(f"output_dir={tmp_path}").returncode == 0
    run, captchas = get_only_run(tmp_path), tmp_path / "captchas"
    assert start_thaw("data", "captchas", f"out={captchas}", "count=200").returncode == 0
    process = start_thaw("predict", str(run), str(captchas), "--captcha")
    assert process.returncode == 0
    measured = re.search(r"entirely right: ([\d.]+) of 200", process.stdout)
    expected = re.search(r"to the power of 4, .*: ([\d.]+)", process.stdout)
    assert measured and expected  # noqa: PT018
    assert float(measured[1]) >= 0.72
    assert abs(float(measured[1]) - float(expected[1])) <= 0.04


def start_thaw(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `thaw ARGUMENTS` in a process."""
    command = [sys.executable, "-m", "thaw.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_finetune_is_better_than_fixed_and_fixed_better_than_scratch(tmp_path: Path) -> None:
    assert run_train_script("-m", "strategy=scratch,fixed,finetune", f"output_dir={tmp_path}").returncode == 0
    scratch, fixed, finetune = read_test_accuracies(tmp_path)
    assert scratch < fixed < finetune


def read_test_accuracies(outputs: Path) -> list[float]:
    """Return the test accuracies of all runs below `outputs`, in the order of their folder names."""
    files = sorted(outputs.rglob("metrics.json"))
    return [json.loads(file.read_text())["test"]["accuracy"] for file in files]
