"""Write `history.csv`, TensorBoard scalars and a line on the screen for each epoch."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from thaw.runs.run import Run
from thaw.system.reporter import SILENT, Reporter
from thaw.training.module import ClassificationModule


class HistoryCallback(Callback):
    """Adds a row to the history when an epoch ends, and replaces the rows of epochs that a resumed run repeats.

    The metrics are those of all processes; the first process writes.
    """

    def __init__(self, run: Run, reporter: Reporter = SILENT) -> None:
        self.run, self.reporter = run, reporter
        self.epoch_start, self.train_end = 0.0, 0.0
        self.learning_rates: dict[str, float] = {}

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the time and the learning rates of the first step."""
        assert isinstance(pl_module, ClassificationModule)
        self.epoch_start, self.train_end = time.perf_counter(), 0.0
        first_step = pl_module.optimization.count_steps(trainer.current_epoch)
        self.learning_rates = pl_module.compute_learning_rates(first_step)

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note the time at which the training steps ended."""
        self.train_end = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write row, scalars and line."""
        assert isinstance(pl_module, ClassificationModule)
        row = self._build_row(pl_module)  # in all processes: they sum their metrics
        if self.run.rank:
            return
        earlier_rows = [row_before for row_before in self.run.read_history() if int(row_before["epoch"]) < row["epoch"]]
        self.run.write_history([*earlier_rows, row])
        scalars = {_format_tag(key): value for key, value in row.items() if isinstance(value, float)}
        assert trainer.logger is not None
        trainer.logger.log_metrics(scalars, step=row["epoch"])
        self.reporter.write(_format_line(row, trainer.max_epochs))

    def _build_row(self, module: ClassificationModule) -> dict[str, Any]:
        epoch_end = time.perf_counter()
        assert module.train_metrics is not None
        train_loss, train_accuracy = module.train_metrics.compute_means()
        val_loss, val_accuracy = module.val_metrics.compute_means() if module.val_metrics else ("", "")
        return {
            "epoch": module.current_epoch + 1,
            "phase": module.plan.get_phase(module.current_epoch).name,
            **{f"lr_{part}": learning_rate for part, learning_rate in self.learning_rates.items()},
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "seconds": round(epoch_end - self.epoch_start, 3),
            "train_seconds": round((self.train_end or epoch_end) - self.epoch_start, 3),
        }


def _format_tag(key: str) -> str:
    """Return the TensorBoard tag of a column of `history.csv`: lr_head -> lr/head, val_loss -> val/loss."""
    group, _, name = key.partition("_")
    return f"{group}/{name}" if group in ("lr", "train", "val") and name != "seconds" else f"time/{key}"


def _format_line(row: dict[str, Any], max_epochs: int | None) -> str:
    """Return the line of an epoch. It fits 80 columns."""
    has_val = row["val_loss"] != ""
    texts = [
        f"{metric} {row[f'train_{metric}']:.3f}" + (f", val {row[f'val_{metric}']:.3f}" if has_val else "")
        for metric in ("loss", "accuracy")
    ]
    return "  ".join([f"epoch {row['epoch']}/{max_epochs}", row["phase"], *texts, f"{row['seconds']:.1f} s"])
