"""`history.csv` and the scalars: one row an epoch."""

from __future__ import annotations

import csv
import io
import time
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from thaw.training.files import write_text
from thaw.training.history_file import read_history
from thaw.training.learner import Learner


class History(Callback):
    """Writes a row when an epoch ends. Rows of epochs that a resumed run repeats are replaced. Of several processes the
    first writes; the sums take all of them."""

    def __init__(self, file: Path, writes: bool = True) -> None:
        self.file, self.writes = file, writes

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        self.started = time.perf_counter()
        self.rates = {f"lr_{part}": rate for part, rate in pl_module.rates_at(trainer.global_step).items()}

    def on_validation_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.trained = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        now = time.perf_counter()
        row = _row(pl_module, self.rates, now - self.started, getattr(self, "trained", now) - self.started)
        if not self.writes:
            return
        kept = [one for one in read_history(self.file) if int(one["epoch"]) < row["epoch"]]
        write_text(self.file, _as_csv([*kept, row]))
        scalars = {_tag(key): value for key, value in row.items() if isinstance(value, float)}
        assert trainer.logger is not None
        trainer.logger.log_metrics(scalars, step=row["epoch"])
        print(_line(row, trainer.max_epochs), flush=True)


def _row(learner: pl.LightningModule, rates: dict[str, float], seconds: float, train_seconds: float) -> dict[str, Any]:
    """`rates` are those of the epoch's first step."""
    assert isinstance(learner, Learner)
    train, val = learner.train_sums.means(), learner.val_sums.means() if hasattr(learner, "val_sums") else ("", "")
    return {
        "epoch": learner.current_epoch + 1,
        "phase": learner.plan.at(learner.current_epoch).name,
        **rates,
        "train_loss": train[0],
        "train_accuracy": train[1],
        "val_loss": val[0],
        "val_accuracy": val[1],
        "seconds": round(seconds, 3),
        "train_seconds": round(train_seconds, 3),
    }


def _tag(key: str) -> str:
    """history.csv's column as a TensorBoard tag: lr_head -> lr/head, val_loss -> val/loss."""
    group, _, rest = key.partition("_")
    return f"{group}/{rest}" if group in ("lr", "train", "val") and rest != "seconds" else f"time/{key}"


def _line(row: dict[str, Any], epochs: int | None) -> str:
    val = f"   val loss {row['val_loss']:.3f} accuracy {row['val_accuracy']:.3f}" if row["val_loss"] != "" else ""
    train = f"train loss {row['train_loss']:.3f} accuracy {row['train_accuracy']:.3f}"
    return f"epoch {row['epoch']}/{epochs}   {row['phase']}   {train}{val}   {row['seconds']:.1f} s"


def _as_csv(rows: list[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[-1]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
