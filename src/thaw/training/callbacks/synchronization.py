"""Keep the processes of a run in agreement."""

from __future__ import annotations

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Callback

from thaw.config.errors import format_names
from thaw.models.parameters import get_batchnorm_layers
from thaw.training.distributed.collectives import average_statistics, mismatched_tensors
from thaw.training.distributed.fsdp import replicated
from thaw.training.module import ClassificationModule


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
    if mismatched_names := mismatched_tensors(replicated(module.network.state_dict())):
        epoch = module.current_epoch + 1
        raise RuntimeError(f"processes differ after epoch {epoch} in {format_names(mismatched_names, 3)}")
