"""When checkpoints are written: as often as costs little, and at the end."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import Tensor

from thaw.training.checkpoint import AtomicCheckpointIO
from thaw.training.learner import Learner
from thaw.training.sharding import whole

MOST_OF_THE_TIME = 0.05  # that writing may take: epochs over cached features are shorter than their checkpoints


class Checkpoints(Checkpoint):
    """`last.ckpt` with all that resuming needs, `best.ckpt` with the weights alone of the epoch with the highest rank.
    They are written behind the first epoch, the last, and any with which MOST_OF_THE_TIME is kept to: where epochs take
    long, behind each. A killed run repeats those since. The best weights wait in memory meanwhile."""

    def __init__(self, folder: Path) -> None:
        self.last, self.best = folder / "last.ckpt", folder / "best.ckpt"
        self.highest, self.waiting = float("-inf"), dict[str, Any]()
        self.written, self.cost = float("-inf"), 0.0

    def state_dict(self) -> dict[str, Any]:
        return {"highest": self.highest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.highest = state_dict["highest"]

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        is_due = self._is_due(trainer)
        if pl_module.rank > self.highest:
            self.highest, self.waiting = pl_module.rank, _weights(pl_module, copied=not is_due)
        if is_due:
            self._write(trainer)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        """As the first process finds: clocks differ."""
        rested = time.perf_counter() - self.written >= self.cost / MOST_OF_THE_TIME
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        return bool(trainer.strategy.broadcast(rested or is_last))

    def _write(self, trainer: pl.Trainer) -> None:
        """The best first: a kill in between leaves an older `last`, which finds it again."""
        began = time.perf_counter()
        if self.waiting and trainer.is_global_zero:
            AtomicCheckpointIO().save_checkpoint(self.waiting, self.best)
        self.waiting = {}
        trainer.save_checkpoint(self.last)
        self.written = time.perf_counter()
        self.cost = self.written - began


def _weights(learner: Learner, copied: bool) -> dict[str, Any]:
    """Of stages that no phase changes there is no need of a copy."""
    still = list(learner.network.stages)[: min(phase.still_stages for phase in learner.plan.phases)]
    unchanging = tuple(f"network.stages.{name}." for name in still)
    state: dict[str, Tensor] = whole(learner.state_dict())
    kept = {
        name: value.clone() if copied and not name.startswith(unchanging) else value for name, value in state.items()
    }
    return {"thaw": learner.about, "epoch": learner.current_epoch, "state_dict": kept}
