"""Show how the training goes on: epoch, batch, loss, speed and remaining time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback

from thaw.data.batches import Batch
from thaw.system.progress import ProgressTask
from thaw.system.reporter import Reporter
from thaw.training.module import ClassificationModule, RunningMetrics

LOSS_INTERVAL_S = 0.5


class ProgressCallback(Callback):
    """Counts the images of all epochs, and later those that are predicted. `images` is their number by split."""

    def __init__(self, reporter: Reporter, images: Mapping[str, int]) -> None:
        self.reporter, self.images = reporter, images
        self.stack = ExitStack()
        self.task = ProgressTask("", 0)
        self.loss = DelayedLoss()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the progress of the training; epochs before a resume count as done."""
        images_per_epoch = self.images["train"] + self.images["val"]
        initial = trainer.current_epoch * images_per_epoch
        progress = self.reporter.progress(
            "training", (trainer.max_epochs or 0) * images_per_epoch, initial=initial, is_main_part=True
        )
        self.task = self.stack.enter_context(progress)
        self.task(0, _format_epoch(trainer))

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Forget the loss of the epoch before."""
        self.loss = DelayedLoss()

    def on_batch_end(
        self, trainer: pl.Trainer, pl_module: ClassificationModule, batch: Batch, loss: torch.Tensor
    ) -> None:
        """Count the images of a batch."""
        loss_text = self.loss.update(pl_module.train_metrics)
        batch_text = f"batch {pl_module.batch_idx + 1}/{pl_module.num_batches}"
        self._advance(trainer, batch, "  ".join(filter(None, [_format_epoch(trainer), batch_text, loss_text])))

    def on_evaluation_batch_end(self, trainer: pl.Trainer, pl_module: ClassificationModule, batch: Batch) -> None:
        """Count the images of a batch of validation or prediction."""
        self._advance(trainer, batch, f"{_format_epoch(trainer)}  validation" if trainer.validating else "")

    def on_predict_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Show the progress of the predictions."""
        progress = self.reporter.progress("evaluating", self.images["val"] + self.images["test"])
        self.task = self.stack.enter_context(progress)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the progress."""
        self.stack.close()

    def on_predict_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Remove the progress."""
        self.stack.close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        """Remove the progress."""
        self.stack.close()

    def _advance(self, trainer: pl.Trainer, batch: Batch, detail: str = "") -> None:
        self.task(len(batch.labels) * trainer.world_size, detail)


def _format_epoch(trainer: pl.Trainer) -> str:
    return f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"


class DelayedLoss:
    """The mean training loss of an epoch so far, about half a second old: no step waits for the device to read it."""

    def __init__(self) -> None:
        self.text = ""
        self.pending_sums: torch.Tensor | None = None
        self.due_time = 0.0

    def update(self, metrics: RunningMetrics | None) -> str:
        """Return the loss as text; empty if none is known yet. Now and then starts a copy of the sums to the CPU, and
        reads it when the next one is due."""
        if metrics is None or (now := time.monotonic()) < self.due_time:
            return self.text
        if self.pending_sums is not None:
            loss_sum, _, count = self.pending_sums.tolist()
            self.text = f"loss {loss_sum / max(count, 1):.3f}"
        self.pending_sums = metrics.stack().to("cpu", non_blocking=True)
        self.due_time = now + LOSS_INTERVAL_S
        return self.text
