"""Find the runs of a sweep and compare them with others."""

from __future__ import annotations

from pathlib import Path

import torch

from tests.conftest import TINY

STRATEGIES = ("scratch", "fixed", "lp_ft")
SMALL = (*TINY, "augment=flip", "head.dropout=0.2")


def load_weights(run: Path) -> dict[str, torch.Tensor]:
    content = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    state_dict: dict[str, torch.Tensor] = content["state_dict"]
    return state_dict


def are_equal(run: Path, other_run: Path) -> bool:
    """Return whether weights and predictions agree to the last bit."""
    weights, other_weights = load_weights(run), load_weights(other_run)
    predictions, other_predictions = ((path / "predictions.csv").read_bytes() for path in (run, other_run))
    return predictions == other_predictions and all(torch.equal(weights[name], other_weights[name]) for name in weights)


def find_sweep(outputs: Path) -> Path:
    (file,) = outputs.glob("*/sweep.json")
    return file.parent


def find_jobs(directory: Path) -> dict[str, Path]:
    return {file.parent.name.partition("_")[2]: file.parent for file in directory.glob("*/run.json")}
