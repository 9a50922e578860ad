"""Stops a trial of a search that promises less than the trials before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from thaw.training.history_file import read_history
from thaw.training.run import Pruned
from thaw.training.trials import report, trial_under_way

if TYPE_CHECKING:
    from optuna.trial import Trial as LiveTrial


class Pruning(Callback):
    """Judges the run in directory `run` by its history when an epoch ends; not behind the last, which leaves nothing to
    save. It needs no state: a resumed run tells the epochs before anew."""

    def __init__(self, run: Path) -> None:
        self.run = run
        self.live: LiveTrial | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Raises Pruned, in all processes, where the first finds the run to be bad."""
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        is_bad = trainer.is_global_zero and not is_last and self._is_bad()
        if trainer.strategy.broadcast(is_bad):
            accuracy = float(trainer.callback_metrics["val/accuracy"])
            epochs = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            raise Pruned(f"after {epochs}, with a validation accuracy of {accuracy:.3f}")

    def _is_bad(self) -> bool:
        rows = read_history(self.run / "history.csv")
        if self.live is None:
            self.live = trial_under_way(self.run)
            return report(self.live, rows)
        return report(self.live, rows[-1:])
