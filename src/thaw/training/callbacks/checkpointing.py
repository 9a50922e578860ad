"""When checkpoints are written: as often as costs little, and at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from thaw.data.preprocessing import Preprocessing
from thaw.models.network import StageFacts
from thaw.runs.checkpoint import CHECKPOINT_FORMAT
from thaw.system.files import write_atomically
from thaw.training.distributed.fsdp import full_tensors
from thaw.training.module import ClassificationModule

MAX_TIME_FRACTION = 0.05  # that writing may take: epochs over cached features are shorter than their checkpoints


class CheckpointCallback(Checkpoint):
    """`last.ckpt` with all that resuming needs, `best.ckpt` with the weights alone of the epoch with the highest rank.
    They are written behind the first epoch, the last, and any with which MOST_OF_THE_TIME is kept to: where epochs take
    long, behind each. A killed run repeats those since. The best weights wait in memory meanwhile."""

    def __init__(self, last_path: Path, best_path: Path) -> None:
        self.last_path, self.best_path = last_path, best_path
        self.best_score, self.pending = float("-inf"), dict[str, Any]()
        self.last_write_time, self.write_seconds = float("-inf"), 0.0

    @property
    def state_key(self) -> str:
        """The key under which version 0.1 saved this state; Lightning's default is the class name."""
        return "Checkpoints"

    def state_dict(self) -> dict[str, Any]:
        return {"highest": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best_score = state_dict["highest"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ClassificationModule)
        is_due = self._is_due(trainer)
        if pl_module.selection_score > self.best_score:
            self.best_score, self.pending = (
                pl_module.selection_score,
                _build_best_checkpoint(pl_module, copy=not is_due),
            )
        if is_due:
            self._write(trainer)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        """As the first process finds: clocks differ."""
        is_affordable = time.perf_counter() - self.last_write_time >= self.write_seconds / MAX_TIME_FRACTION
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        return bool(trainer.strategy.broadcast(is_affordable or is_last))

    def _write(self, trainer: pl.Trainer) -> None:
        """The best first: a kill in between leaves an older `last`, which finds it again."""
        start_time = time.perf_counter()
        if self.pending and trainer.is_global_zero:
            AtomicCheckpointIO().save_checkpoint(self.pending, self.best_path)
        self.pending = {}
        trainer.save_checkpoint(self.last_path)
        self.last_write_time = time.perf_counter()
        self.write_seconds = self.last_write_time - start_time


def _build_best_checkpoint(module: ClassificationModule, copy: bool) -> dict[str, Any]:
    """Of stages that no phase changes there is no need of a copy."""
    static_stages = list(module.network.stages)[: min(phase.num_static_stages for phase in module.plan.phases)]
    static_prefixes = tuple(f"network.stages.{name}." for name in static_stages)
    state: dict[str, Tensor] = full_tensors(module.state_dict())
    weights = {
        name: value.clone() if copy and not name.startswith(static_prefixes) else value for name, value in state.items()
    }
    return {"thaw": module.metadata, "epoch": module.current_epoch, "state_dict": weights}


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
