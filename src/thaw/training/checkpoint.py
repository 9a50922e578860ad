"""Checkpoints: weights, the plain-data recipe, class names, preprocessing, stages; written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning.plugins.io import TorchCheckpointIO

from thaw.data.preprocessing import Preprocessing
from thaw.network.network import StageFacts
from thaw.training.files import write_atomically
from thaw.training.format import CHECKPOINT_FORMAT


class AtomicCheckpointIO(TorchCheckpointIO):
    """Written aside, flushed to the disk, renamed: a kill at any moment leaves the old file or the new one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(target, lambda stream: torch.save(checkpoint, stream))


def build_checkpoint_metadata(
    recipe: dict[str, Any],
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    stages: list[StageFacts],
    cached_depths: Iterable[int],
) -> dict[str, Any]:
    """What a checkpoint needs to be used without its run: plain data alone. `cached` are the numbers of leading stages
    whose features the run trained on: from features computed otherwise the same weights give other roundings."""
    rows = [{"name": stage.name, "shape": list(stage.shape), "parameters": stage.num_parameters} for stage in stages]
    return {
        "format": CHECKPOINT_FORMAT,
        "recipe": recipe,
        "classes": list(classes),
        "preprocessing": preprocessing.to_dict(),
        "stages": rows,
        "cached": sorted({*cached_depths} - {0}),
    }
