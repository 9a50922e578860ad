"""Killed inside every phase, and resumed each time: the weights are those of a run that nothing disturbed."""

from __future__ import annotations

import json
import multiprocessing
import time
from pathlib import Path

import pytest
import torch

from tests.conftest import TINY, only_run
from thaw.launch import launch
from thaw.training.history import read_history

PROCESSES = multiprocessing.get_context("forkserver")  # forked from one that has imported everything, once
PROCESSES.set_forkserver_preload(["thaw.launch", "thaw.training.train"])
RECIPE = (*TINY, "dataset.train=24", "head.dropout=0.3", "augment=crop_flip", "trainer.epochs=4")
STRATEGIES = {
    "gradual": ("strategy.phases.head.share=0.25", "strategy.phases.unfreeze.unfreeze=['last:3']"),
    "lp_ft": ("strategy.phases.probe.share=0.5",),
}
SCHEDULERS = {"one_cycle": (), "cosine": ("scheduler.warmup_epochs=0.5",)}


def whole_epochs(outputs: Path) -> int:
    files = list(outputs.rglob("history.csv"))
    return len(read_history(files[0])) if files else 0


def is_planned(outputs: Path) -> bool:
    return any("plan" in json.loads(file.read_text()) for file in outputs.rglob("run.json"))


def kill_in_epoch(arguments: list[str], outputs: Path, epoch: int) -> None:
    """Starts `python train.py ARGUMENTS` and kills it while `epoch` (from 1) is under way."""
    process = PROCESSES.Process(target=launch, args=(arguments,))
    process.start()
    end = time.monotonic() + 120
    while not (is_planned(outputs) and whole_epochs(outputs) == epoch - 1):
        assert process.is_alive()
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(0.1 if epoch > 1 else 0.7)  # an epoch takes some 0.5 s, the pictures before the first as much
    process.kill()
    process.join()


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_in_every_phase_and_resumed_gives_the_same_to_the_last_bit(
    strategy: str, scheduler: str, tmp_path: Path
) -> None:
    chosen = (*STRATEGIES[strategy], f"strategy={strategy}", *SCHEDULERS[scheduler], f"scheduler={scheduler}")
    arguments = [*RECIPE, *chosen]
    assert launch([*arguments, f"output_dir={tmp_path / 'whole'}"]) == 0
    whole = only_run(tmp_path / "whole")
    phases = json.loads((whole / "run.json").read_text())["plan"]
    assert len(phases) == {"gradual": 4, "lp_ft": 2}[strategy]

    killed = tmp_path / "killed"
    command = [*arguments, f"output_dir={killed}"]
    for phase in phases:
        kill_in_epoch(command, killed, phase["start"] + 1)
        assert whole_epochs(killed) == phase["start"]
        command = [f"resume={only_run(killed)}"]
    assert launch(command) == 0

    assert len(json.loads((only_run(killed) / "run.json").read_text())["resumed"]) == len(phases)
    assert history(only_run(killed)) == history(whole)
    after = weights(only_run(killed))
    assert all(torch.equal(after[name], value) for name, value in weights(whole).items())


def history(run: Path) -> list[dict[str, str]]:
    rows = read_history(run / "history.csv")
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


def weights(run: Path) -> dict[str, torch.Tensor]:
    state: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return state
