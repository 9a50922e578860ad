"""A run that is killed in every phase and resumed each time has the weights of an undisturbed run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, get_only_run
from tests.training.killed import kill_in_epoch
from thaw.cli.train import launch
from thaw.runs.run import Run

RECIPE = (*TINY, "dataset.train=24", "head.dropout=0.3", "trainer.epochs=4")
GRADUAL = ("strategy=gradual", "strategy.phases.head.fraction=0.25", "strategy.phases.unfreeze.unfreeze=['last:3']")
LP_FT = ("strategy=lp_ft", "strategy.phases.probe.fraction=0.5")
COSINE = ("scheduler=cosine", "scheduler.warmup_epochs=0.5")
CASES = {
    "gradual": (4, ("augment=crop_flip", *GRADUAL)),
    "gradual, cosine": (4, ("augment=crop_flip", *GRADUAL, *COSINE)),
    "gradual, cached": (4, ("feature_cache=require", *GRADUAL)),
    "lp_ft": (2, ("augment=crop_flip", *LP_FT)),
    "lp_ft, cosine": (2, ("augment=crop_flip", *LP_FT, *COSINE)),
}


def count_complete_epochs(outputs: Path) -> int:
    files = list(outputs.rglob("history.csv"))
    return len(Run(files[0].parent).read_history()) if files else 0


@pytest.mark.parametrize(
    ("phase_count", "overrides"),
    [pytest.param(*case, id=name, marks=[pytest.mark.long] * (name != "lp_ft")) for name, case in CASES.items()],
)
def test_a_run_killed_in_every_phase_and_resumed_gives_the_same_bits(
    phase_count: int, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    arguments = [*RECIPE, *overrides]
    assert launch([*arguments, f"output_dir={tmp_path / 'whole'}"]) == 0
    expected_run = get_only_run(tmp_path / "whole")
    phases = json.loads((expected_run / "run.json").read_text())["plan"]
    assert len(phases) == phase_count

    outputs = tmp_path / "killed"
    command = [*arguments, f"output_dir={outputs}"]
    for phase in phases:
        kill_in_epoch(phase["start"] + 1, command)
        assert count_complete_epochs(outputs) == phase["start"]
        command = [f"resume={get_only_run(outputs)}"]
    assert launch(command) == 0

    assert len(json.loads((get_only_run(outputs) / "run.json").read_text())["resumed"]) == len(phases)
    assert read_history(get_only_run(outputs)) == read_history(expected_run)
    state = read_weights(get_only_run(outputs))
    assert all(torch.equal(state[name], value) for name, value in read_weights(expected_run).items())


def read_history(run: Path) -> list[dict[str, str]]:
    rows = Run(run).read_history()
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


def read_weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state
