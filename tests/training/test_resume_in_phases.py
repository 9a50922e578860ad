"""Killed inside every phase, and resumed each time: the weights are those of a run that nothing disturbed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, only_run
from tests.training.killed import killed_in_epoch
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


def whole_epochs(outputs: Path) -> int:
    files = list(outputs.rglob("history.csv"))
    return len(Run(files[0].parent).read_history()) if files else 0


@pytest.mark.parametrize(
    ("phase_count", "chosen"),
    [pytest.param(*case, id=name, marks=[pytest.mark.long] * name.endswith("cosine")) for name, case in CASES.items()],
)
def test_killed_in_every_phase_and_resumed_gives_the_same_to_the_last_bit(
    phase_count: int, chosen: tuple[str, ...], tmp_path: Path
) -> None:
    arguments = [*RECIPE, *chosen]
    assert launch([*arguments, f"output_dir={tmp_path / 'whole'}"]) == 0
    whole = only_run(tmp_path / "whole")
    phases = json.loads((whole / "run.json").read_text())["plan"]
    assert len(phases) == phase_count

    killed = tmp_path / "killed"
    command = [*arguments, f"output_dir={killed}"]
    for phase in phases:
        killed_in_epoch(phase["start"] + 1, command)
        assert whole_epochs(killed) == phase["start"]
        command = [f"resume={only_run(killed)}"]
    assert launch(command) == 0

    assert len(json.loads((only_run(killed) / "run.json").read_text())["resumed"]) == len(phases)
    assert history(only_run(killed)) == history(whole)
    after = weights(only_run(killed))
    assert all(torch.equal(after[name], value) for name, value in weights(whole).items())


def history(run: Path) -> list[dict[str, str]]:
    rows = Run(run).read_history()
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state
