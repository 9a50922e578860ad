"""Runs and sweeps compared."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.conftest import TINY

STRATEGIES = ("scratch", "fixed", "lp_ft")
SMALL = (*TINY, "augment=flip", "head.dropout=0.2")


def load_weights(run: Path) -> dict[str, torch.Tensor]:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    state: dict[str, torch.Tensor] = content["state_dict"]
    return state


def are_equal(one: Path, other: Path) -> bool:
    first, second = load_weights(one), load_weights(other)
    predicted = [(run / "predictions.csv").read_bytes() for run in (one, other)]
    return predicted[0] == predicted[1] and all(torch.equal(first[name], second[name]) for name in first)


def find_sweep(outputs: Path) -> Path:
    (file,) = outputs.glob("*/sweep.json")
    return file.parent


def find_jobs(directory: Path) -> dict[str, Path]:
    return {file.parent.name.partition("_")[2]: file.parent for file in directory.glob("*/run.json")}
