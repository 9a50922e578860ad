"""The LightningModule: follows the plan, and keeps its sums on the device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.data.batches import Batch
from thaw.data.changes import changed
from thaw.data.preprocessing import Preprocessing
from thaw.network.network import Network
from thaw.strategy.plan import Plan
from thaw.training.objective import apply_phase, parameter_groups, set_weight_decay
from thaw.training.process import reseed

Optimizers = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
STEPS_PER_CHECK = 50  # on a GPU, where asking for the loss waits for the device


class NotFinite(Exception):
    """The loss is no number any more; carries the epoch, the step and the learning rates by part."""

    def __init__(self, epoch: int, step: int, rates: dict[str, float]) -> None:
        super().__init__(f"epoch {epoch + 1}, step {step}")
        self.epoch, self.step, self.rates = epoch, step, rates


@dataclass
class Sums:
    """Sums over images of loss and right answers, and their count, as one float64 tensor on the device."""

    values: Tensor

    @staticmethod
    def on(device: torch.device) -> Sums:
        kind = torch.float32 if device.type == "mps" else torch.float64
        return Sums(torch.zeros(3, dtype=kind, device=device))

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        right = (logits.argmax(1) == labels).sum()
        count = labels.shape[0]
        self.values += torch.stack([loss.detach() * count, right, right.new_tensor(count)]).to(self.values)

    def means(self) -> tuple[float, float]:
        """Loss and accuracy; nan where nothing was added."""
        loss, right, count = self.values.tolist()
        return (loss / count, right / count) if count else (float("nan"), float("nan"))


class Learner(pl.LightningModule):
    """Trains `network` on uint8 batches as `plan` says. `factor(step)` multiplies every learning rate; `about` is what
    checkpoints say of themselves."""

    mean: Tensor
    deviation: Tensor

    def __init__(
        self,
        network: Network,
        plan: Plan,
        preprocessing: Preprocessing,
        optimizers: Optimizers,
        factor: Callable[[int], float],
        steps_per_epoch: int,
        *,
        seed: int,
        label_smoothing: float,
        decay_norms_and_biases: bool,
        memory_format: torch.memory_format,
        about: dict[str, Any],
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=memory_format)
        self.plan, self.optimizers_of, self.factor, self.steps_per_epoch = plan, optimizers, factor, steps_per_epoch
        self.seed, self.label_smoothing, self.memory_format = seed, label_smoothing, memory_format
        self.decay_norms_and_biases, self.about = decay_norms_and_biases, about
        self.size = preprocessing.size
        self.register_buffer("mean", channels(preprocessing.mean), persistent=False)
        self.register_buffer("deviation", channels(preprocessing.deviation), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, 3, size, size] on the 0..255 scale."""
        normalised = (images.to(self.mean.dtype) - self.mean) / self.deviation
        logits: Tensor = self.network(normalised.contiguous(memory_format=self.memory_format))
        return logits

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self.network, self.decay_norms_and_biases)
        rates = [self._rate_of(group["part"]) for group in groups]
        optimizer = self.optimizers_of(groups)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rates)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _rate_of(self, part: str) -> Callable[[int], float]:
        """The learning rate of a part at every step: its rate in the phase of that step's epoch, times the schedule."""

        def rate(step: int) -> float:
            parts = self.plan.at(step // self.steps_per_epoch).parts
            return next(one.learning_rate for one in parts if one.name == part) * self.factor(step)

        return rate

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["thaw"] = self.about

    def on_train_epoch_start(self) -> None:
        phase = self.plan.at(self.current_epoch)
        apply_phase(self.network, phase)
        set_weight_decay(self.trainer.optimizers[0].param_groups, phase)
        reseed(self.seed, "epoch", self.current_epoch, self.global_rank)
        # Lightning's own count for samplers is one epoch behind after a resume (2.6.6).
        loader: Any = self.trainer.train_dataloader
        loader.batch_sampler.set_epoch(self.current_epoch)
        self.train_sums = Sums.on(self.device)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, labels, _, drawn = batch
        logits = self(changed(images, drawn, self.size) if drawn else images)
        loss = self._loss(logits, labels, drawn)
        self.train_sums.add(loss, logits, labels)
        if self.device.type == "cpu" or batch_idx % STEPS_PER_CHECK == 0:
            self._check_finite(batch_idx)
        return loss

    def _loss(self, logits: Tensor, labels: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Mean cross-entropy; of images that are mixed, with both labels by their shares."""
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing, reduction="none")
        if "partner" in drawn:
            others = labels[drawn["partner"]]
            mixed = F.cross_entropy(logits, others, label_smoothing=self.label_smoothing, reduction="none")
            loss = drawn["share"] * loss + (1 - drawn["share"]) * mixed
        return loss.mean()

    def on_train_epoch_end(self) -> None:
        self._check_finite(int(self.trainer.num_training_batches))
        if not self.trainer.val_dataloaders:
            self._log_rank(float(self.current_epoch))  # nothing to choose by: the last epoch is the best

    def _check_finite(self, step: int) -> None:
        if not torch.isfinite(self.train_sums.values[0]):
            rates = {group["part"]: group["lr"] for group in self.trainer.optimizers[0].param_groups}
            raise NotFinite(self.current_epoch, step, rates)

    def on_validation_epoch_start(self) -> None:
        self.val_sums = Sums.on(self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits, labels = self(batch.images), batch.labels
        self.val_sums.add(F.cross_entropy(logits, labels), logits, labels)

    def on_validation_epoch_end(self) -> None:
        loss, accuracy = self.val_sums.means()
        # Of epochs with the same accuracy, common with few validation images, the one with the lower loss is better.
        # The loss cannot outweigh one image of 10 million. float64, as float32 would round it away.
        self._log_rank(accuracy - 1e-9 * min(loss, 100.0))
        self.log_dict({"val/loss": loss, "val/accuracy": accuracy}, logger=False)

    def _log_rank(self, rank: float) -> None:
        """What `best.ckpt` goes by."""
        self.log("rank", torch.tensor(rank, dtype=torch.float64), logger=False)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Logits, float32 on the CPU, and positions in the table of samples."""
        return self(batch.images).float().cpu(), batch.positions.cpu()


def channels(values: tuple[float, float, float]) -> Tensor:
    """0..1 statistics as [1, 3, 1, 1] on the 0..255 scale of the images."""
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) * 255
