"""Callbacks that end a training: a loss that is not finite, processes that differ, a trial that a search prunes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from thaw.config.errors import format_names
from thaw.models.network import get_batchnorm_layers
from thaw.runs.lifecycle import TrialPruned
from thaw.runs.run import Run
from thaw.runs.search import create_optuna_trial, report_epochs
from thaw.training.distributed.collectives import average_statistics, mismatched_tensors
from thaw.training.distributed.fsdp import select_replicated
from thaw.training.module import ClassificationModule

if TYPE_CHECKING:
    from optuna.trial import Trial as OptunaTrial

STEPS_PER_CHECK = 50  # on a GPU, where reading the loss waits for the device, and with several processes


class NonFiniteLossError(Exception):
    """The loss is infinite or not a number. Carries epoch, step and the learning rate of each part."""

    def __init__(self, epoch: int, step: int, learning_rates: dict[str, float]) -> None:
        super().__init__(f"epoch {epoch + 1}, step {step}")
        self.epoch, self.step, self.learning_rates = epoch, step, learning_rates


class FiniteLossCallback(Callback):
    """Raises NonFiniteLossError in all processes, before the step that would use the loss.

    A single process on a CPU checks the loss of every batch. Otherwise the sum of the epoch's losses is checked, at
    every 50th step and at the end of the epoch.
    """

    def on_before_backward(self, trainer: pl.Trainer, pl_module: pl.LightningModule, loss: Tensor) -> None:
        """Check the loss after the forward pass."""
        assert isinstance(pl_module, ClassificationModule)
        if pl_module.device.type == "cpu" and trainer.world_size == 1:
            is_finite = math.isfinite(loss.item())
        else:
            is_finite = pl_module.batch_idx % STEPS_PER_CHECK != 0 or _is_sum_finite(pl_module)
        if not is_finite:
            raise _build_loss_error(pl_module, pl_module.batch_idx)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Check the losses of the last steps."""
        assert isinstance(pl_module, ClassificationModule)
        if not _is_sum_finite(pl_module):
            raise _build_loss_error(pl_module, pl_module.num_batches)


def _is_sum_finite(module: ClassificationModule) -> bool:
    assert module.train_metrics is not None
    return module.train_metrics.is_finite()


def _build_loss_error(module: ClassificationModule, batch_idx: int) -> NonFiniteLossError:
    return NonFiniteLossError(module.current_epoch, batch_idx, module.compute_learning_rates(module.step))


class SynchronizationCallback(Callback):
    """Synchronizes the processes after the training steps of each epoch: before validation, if there is any."""

    def on_validation_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Synchronize before validation."""
        synchronize(pl_module)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Synchronize if there is no validation."""
        if not trainer.val_dataloaders:
            synchronize(pl_module)


def synchronize(module: pl.LightningModule) -> None:
    """Average BatchNorm's statistics over the processes and check that all of them hold the same weights.

    Gradients are exchanged in every step, so weights are equal anyway, and FSDP holds each of them once.

    Raises:
        RuntimeError: if replicated tensors differ. torch would not notice, and the result would be worthless.
    """
    assert isinstance(module, ClassificationModule)
    if module.trainer.world_size == 1:
        return
    parts = module.plan.get_phase(module.current_epoch).parts
    part_names = [part.name for part in parts if part.batchnorm != "eval"]
    average_statistics([layer for name in part_names for layer in get_batchnorm_layers(module.network.get_part(name))])
    if mismatched_names := mismatched_tensors(select_replicated(module.network.state_dict())):
        epoch = module.current_epoch + 1
        raise RuntimeError(f"processes differ after epoch {epoch} in {format_names(mismatched_names, 3)}")


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
