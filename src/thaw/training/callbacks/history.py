"""`history.csv` and the scalars: one row an epoch."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from thaw.runs.run import Run
from thaw.training.module import ClassificationModule


class HistoryCallback(Callback):
    """Writes a row when an epoch ends. Rows of epochs that a resumed run repeats are replaced. Of several processes the
    first writes; the sums take all of them."""

    def __init__(self, run: Run) -> None:
        self.run = run

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, ClassificationModule)
        self.epoch_start = time.perf_counter()
        self.learning_rates = {
            f"lr_{part}": rate for part, rate in pl_module.compute_learning_rates(trainer.global_step).items()
        }

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.train_end = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        row = _build_row(
            pl_module, self.learning_rates, now - self.epoch_start, getattr(self, "train_end", now) - self.epoch_start
        )
        if self.run.rank:
            return
        earlier_rows = [old_row for old_row in self.run.read_history() if int(old_row["epoch"]) < row["epoch"]]
        self.run.write_history([*earlier_rows, row])
        scalars = {_format_tag(key): value for key, value in row.items() if isinstance(value, float)}
        assert trainer.logger is not None
        trainer.logger.log_metrics(scalars, step=row["epoch"])
        print(_format_line(row, trainer.max_epochs), flush=True)


def _build_row(
    module: pl.LightningModule, learning_rates: dict[str, float], seconds: float, train_seconds: float
) -> dict[str, Any]:
    """`rates` are those of the epoch's first step."""
    assert isinstance(module, ClassificationModule)
    train_means, val_means = (
        module.train_metrics.compute_means(),
        module.val_metrics.compute_means() if hasattr(module, "val_metrics") else ("", ""),
    )
    return {
        "epoch": module.current_epoch + 1,
        "phase": module.plan.get_phase(module.current_epoch).name,
        **learning_rates,
        "train_loss": train_means[0],
        "train_accuracy": train_means[1],
        "val_loss": val_means[0],
        "val_accuracy": val_means[1],
        "seconds": round(seconds, 3),
        "train_seconds": round(train_seconds, 3),
    }


def _format_tag(key: str) -> str:
    """history.csv's column as a TensorBoard tag: lr_head -> lr/head, val_loss -> val/loss."""
    group, _, name = key.partition("_")
    return f"{group}/{name}" if group in ("lr", "train", "val") and name != "seconds" else f"time/{key}"


def _format_line(row: dict[str, Any], max_epochs: int | None) -> str:
    val_text = f"   val loss {row['val_loss']:.3f} accuracy {row['val_accuracy']:.3f}" if row["val_loss"] != "" else ""
    train_text = f"train loss {row['train_loss']:.3f} accuracy {row['train_accuracy']:.3f}"
    return f"epoch {row['epoch']}/{max_epochs}   {row['phase']}   {train_text}{val_text}   {row['seconds']:.1f} s"
