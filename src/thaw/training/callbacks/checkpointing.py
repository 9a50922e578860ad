"""Write checkpoints as often as costs little, and at the end."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from thaw.data.identity import DataIdentity
from thaw.data.preprocessing import Preprocessing
from thaw.models.network import StageFacts
from thaw.runs.checkpoint import CHECKPOINT_FORMAT, read_training_state
from thaw.runs.history import selection_score
from thaw.runs.schema import PrecisionEntry
from thaw.system.files import write_atomically
from thaw.training.distributed.fsdp import full_tensors
from thaw.training.module import ClassificationModule

MAX_TIME_FRACTION = 0.05  # of the time, spent on writing: epochs on cached features are shorter than a write


class CheckpointCallback(Checkpoint):
    """Writes `last.ckpt`, which a run resumes from, and `best.ckpt`, the weights of the epoch with the highest score.

    Both are written after the first epoch, after the last, and after every epoch that leaves the time spent on writing
    below MAX_TIME_FRACTION: after each, where epochs take long. A killed run repeats the epochs since. Until then the
    best weights wait in memory as `pending`. `metadata` is stored in both files.
    """

    def __init__(self, last_path: Path, best_path: Path, metadata: dict[str, Any]) -> None:
        self.last_path, self.best_path, self.metadata = last_path, best_path, metadata
        self.best_score, self.pending = float("-inf"), dict[str, Any]()
        self.last_write_time, self.write_seconds = float("-inf"), 0.0

    @property
    def state_key(self) -> str:
        """The key under which version 0.1 saved this state; Lightning's default is the class name."""
        return "Checkpoints"

    def state_dict(self) -> dict[str, Any]:
        """Return the best score so far."""
        return {"highest": self.best_score}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load the best score so far."""
        self.best_score = state_dict["highest"]

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the metadata to `last.ckpt`."""
        checkpoint["thaw"] = self.metadata

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Keep the weights if they are the best so far, and write if it is time."""
        assert isinstance(pl_module, ClassificationModule)
        is_due, score = self._is_due(trainer), _compute_selection_score(pl_module)
        if score > self.best_score:
            self.best_score, self.pending = score, self._build_best_checkpoint(pl_module, copy=not is_due)
        if is_due:
            self._write(trainer)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        """Return the decision of the first process: clocks differ."""
        is_affordable = time.perf_counter() - self.last_write_time >= self.write_seconds / MAX_TIME_FRACTION
        is_last = trainer.should_stop or trainer.current_epoch + 1 == trainer.max_epochs
        return bool(trainer.strategy.broadcast(is_affordable or is_last))

    def _build_best_checkpoint(self, module: ClassificationModule, copy: bool) -> dict[str, Any]:
        """Build the content of `best.ckpt`. Stages that no phase changes are not copied."""
        static_stages = list(module.network.stages)[: min(phase.num_static_stages for phase in module.plan.phases)]
        static_prefixes = tuple(f"network.stages.{name}." for name in static_stages)
        state: dict[str, Tensor] = full_tensors(module.state_dict())
        weights = {
            name: value.clone() if copy and not name.startswith(static_prefixes) else value
            for name, value in state.items()
        }
        return {"thaw": self.metadata, "epoch": module.current_epoch, "state_dict": weights}

    def _write(self, trainer: pl.Trainer) -> None:
        """Write the best first: after a kill in between, an older `last` finds it again."""
        start_time = time.perf_counter()
        if self.pending and trainer.is_global_zero:
            AtomicCheckpointIO().save_checkpoint(self.pending, self.best_path)
        self.pending = {}
        trainer.save_checkpoint(self.last_path)
        self.last_write_time = time.perf_counter()
        self.write_seconds = self.last_write_time - start_time


def _compute_selection_score(module: ClassificationModule) -> float:
    """Compute the score of the epoch. Without validation images the last epoch is the best."""
    if module.val_metrics is None:
        return float(module.current_epoch)
    loss, accuracy = module.val_metrics.compute_means()
    return selection_score(accuracy, loss)


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes to a temporary file, flushes it and renames it: a kill leaves the old file or the new one. Verifies what
    it reads."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write `checkpoint` to `path`."""
        target = Path(path)
        target.parent.mkdir(exist_ok=True)  # not the run directory, which somebody may have removed
        write_atomically(target, lambda stream: _save(checkpoint, stream))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Read the checkpoint at `path` on the CPU.

        Raises:
            UserError: if the file is damaged, or its weights are not finite.
        """
        return read_training_state(Path(path))


def _save(checkpoint: dict[str, Any], stream: BinaryIO) -> None:
    """Save with torch, which hides an error of the stream, such as a full disk, behind its own."""
    try:
        torch.save(checkpoint, stream)
    except RuntimeError as error:
        if isinstance(error.__context__, OSError):
            raise error.__context__ from None
        raise


def build_checkpoint_metadata(
    recipe: dict[str, Any],
    classes: tuple[str, ...],
    preprocessing: Preprocessing,
    stages: list[StageFacts],
    cached_depths: Iterable[int],
    identity: DataIdentity | None = None,
    precision: PrecisionEntry | None = None,
) -> dict[str, Any]:
    """Build what a checkpoint needs to be used without its run, as plain data.

    `cached_depths` are the numbers of leading stages whose cached features the run trained on: the same weights round
    differently from features that are computed in another way. `identity` recognizes the images it was trained on,
    `precision` is that of the network.
    """
    rows = [{"name": stage.name, "shape": list(stage.shape), "parameters": stage.num_parameters} for stage in stages]
    return {
        "format": CHECKPOINT_FORMAT,
        "recipe": recipe,
        "classes": list(classes),
        "preprocessing": preprocessing.to_dict(),
        "stages": rows,
        "cached": sorted({*cached_depths} - {0}),
        **({"data": identity.model_dump()} if identity else {}),
        **({"precision": precision.model_dump()} if precision else {}),
    }
