"""When checkpoints are written: as often as costs little, and at the end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from thaw.training.checkpoint import AtomicCheckpointIO
from thaw.training.learner import ClassificationModule
from thaw.training.sharding import full_tensors

MAX_TIME_FRACTION = 0.05  # that writing may take: epochs over cached features are shorter than their checkpoints


class CheckpointCallback(Checkpoint):
    """`last.ckpt` with all that resuming needs, `best.ckpt` with the weights alone of the epoch with the highest rank.
    They are written behind the first epoch, the last, and any with which MOST_OF_THE_TIME is kept to: where epochs take
    long, behind each. A killed run repeats those since. The best weights wait in memory meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.last_path, self.best_path = folder / "last.ckpt", folder / "best.ckpt"
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
