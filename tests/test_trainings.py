"""What the README promises of whole trainings. Minutes each: `make test-long`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import typed

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]


def test_the_default_command_learns_the_captcha_characters(tmp_path: Path) -> None:
    assert typed(f"output_dir={tmp_path}").returncode == 0
    (accuracy,) = accuracies_below(tmp_path)
    assert accuracy >= 0.92


def test_scratch_is_below_fixed_is_below_finetune(tmp_path: Path) -> None:
    assert typed("-m", "strategy=scratch,fixed,finetune", f"output_dir={tmp_path}").returncode == 0
    scratch, fixed, finetune = accuracies_below(tmp_path)
    assert scratch < fixed < finetune


def accuracies_below(outputs: Path) -> list[float]:
    """Test accuracies of all runs, in the order of their folders' names."""
    files = sorted(outputs.rglob("metrics.json"))
    return [json.loads(file.read_text())["test"]["accuracy"] for file in files]
