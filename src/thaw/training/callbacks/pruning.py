"""Stop a trial of a search that is worse than the trials before it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from thaw.runs.run import Run, TrialPruned
from thaw.runs.search import create_optuna_trial, report_epochs

if TYPE_CHECKING:
    from optuna.trial import Trial as OptunaTrial


class PruningCallback(Callback):
    """Reports each epoch to the search and raises TrialPruned in all processes if the search prunes the trial.

    It reads the history, so it comes after HistoryCallback. It does not prune after the last epoch, which would save
    nothing. It keeps no state: a resumed run reports its earlier epochs again.
    """

    def __init__(self, run_directory: Path) -> None:
        self.run_directory = run_directory
        self.optuna_trial: OptunaTrial | None = None

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Report the epoch. Raises TrialPruned."""
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        should_prune = trainer.is_global_zero and not is_last and self._report_and_check()
        if trainer.strategy.broadcast(should_prune):
            accuracy = float(trainer.callback_metrics["val/accuracy"])
            progress = f"epoch {trainer.current_epoch + 1} of {trainer.max_epochs}"
            raise TrialPruned(f"after {progress}, with a validation accuracy of {accuracy:.3f}")

    def _report_and_check(self) -> bool:
        rows = Run(self.run_directory).read_history()
        if self.optuna_trial is None:
            self.optuna_trial = create_optuna_trial(self.run_directory)
            return report_epochs(self.optuna_trial, rows)
        return report_epochs(self.optuna_trial, rows[-1:])
