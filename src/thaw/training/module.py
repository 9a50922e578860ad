"""The LightningModule that trains a network as its plan says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thaw.config.errors import Problem, UserError
from thaw.data.augmentation import average_over_views
from thaw.data.batches import Batch, EpochBatchSampler
from thaw.data.preprocessing import Preprocessing
from thaw.data.transforms import apply_augmentation
from thaw.models.network import Network, Normalize
from thaw.strategy.plan import PhasePlan, Plan
from thaw.training.distributed.collectives import all_reduce_sum
from thaw.training.distributed.fsdp import FSDP2Strategy, is_sharded, shard
from thaw.training.freezing import apply_phase, freeze_untrained, set_modes
from thaw.training.optimizers import Optimization, set_weight_decay


class ClassificationModule(pl.LightningModule):
    """Trains `network` on batches of uint8 images or of cached features.

    The module computes logits, losses and metrics, applies the phases of the plan and sets the learning rates.
    Everything else is a callback: L2-SP, agreement of processes, checks of the loss, history, checkpoints.
    """

    def __init__(
        self,
        network: Network,
        preprocessing: Preprocessing,
        memory_format: torch.memory_format,
        plan: Plan,
        optimization: Optimization,
        criterion: ClassificationLoss,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=memory_format)
        self.normalize, self.memory_format = Normalize(preprocessing), memory_format
        self.image_size = preprocessing.size
        self.plan, self.optimization, self.criterion = plan, optimization, criterion
        self.phase: PhasePlan | None = None  # the phase that is applied to the network
        self.val_losses: list[float] = []  # one for each epoch so far
        self.train_metrics: RunningMetrics | None = None
        self.val_metrics: RunningMetrics | None = None
        freeze_untrained(network, plan)

    def configure_model(self) -> None:
        """Shard the network for FSDP: on the device, before the optimizer is built and a checkpoint is loaded."""
        if isinstance(self.trainer.strategy, FSDP2Strategy) and not is_sharded(self.network):
            assert self.device_mesh is not None
            shard(self.network, self.device_mesh["data_parallel"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Build the optimizer over everything that trains in some phase."""
        return self.optimization.build_optimizer(self.network)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the images that the network takes."""
        return 3, self.image_size, self.image_size

    def forward(self, images: Tensor) -> Tensor:
        """Compute logits [n, classes] of images [n, 3, size, size] on the 0..255 scale."""
        logits: Tensor = self.network(self.normalize(images).contiguous(memory_format=self.memory_format))
        return logits

    def compute_logits(self, batch: Batch) -> Tensor:
        """Compute logits [n, classes] of a batch.

        Images are augmented if the batch says how; logits of several views of an image are averaged. A batch of cached
        features starts after the stages that computed them.
        """
        if batch.depth:
            return self.network.forward_from(batch.images, batch.depth)
        if batch.images.ndim == 5:
            return average_over_views(self, batch.images)
        if batch.augmentation_params:
            return self.forward(apply_augmentation(batch.images, batch.augmentation_params, self.image_size))
        return self.forward(batch.images)

    def compute_learning_rates(self, step: int) -> dict[str, float]:
        """Compute the learning rate of each part at an optimizer step, counted from the start of the run."""
        return self.optimization.compute_learning_rates(self.plan, step, self.val_losses)

    def on_train_epoch_start(self) -> None:
        """Apply the phase of the epoch."""
        phase, optimizer = self.plan.get_phase(self.current_epoch), self.trainer.optimizers[0]
        if phase is self.phase:
            set_modes(self.network, phase.active_parts)
        else:
            apply_phase(self.network, phase)
            self.phase = phase
        set_weight_decay(optimizer.param_groups, phase)
        if phase.restarts_optimizer and phase.start == self.current_epoch:
            optimizer.state.clear()
        # Lightning's own epoch count for samplers is one behind after a resume (2.6.6).
        self._get_batch_sampler().set_epoch(self.current_epoch)
        self.train_metrics = RunningMetrics.create(self.device)

    def _get_batch_sampler(self) -> EpochBatchSampler:
        loader: Any = self.trainer.train_dataloader
        batch_sampler: EpochBatchSampler = loader.batch_sampler
        return batch_sampler

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        """Set the learning rate of each parameter group."""
        learning_rates = self.compute_learning_rates(self.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = learning_rates[group["part"]]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Compute the training loss of a batch, weighted so that each image of an optimizer step counts the same.

        Lightning divides the loss by `accumulate_grad_batches`, and DDP averages the gradients of the processes.
        """
        assert self.train_metrics is not None
        logits = self.compute_logits(batch)
        loss: Tensor = self.criterion(logits, batch.labels, batch.augmentation_params)
        self.train_metrics.update(loss, logits, batch.labels)
        batch_sampler, accumulate = self._get_batch_sampler(), self.trainer.accumulate_grad_batches
        return loss * batch_sampler.compute_batch_weight(batch_idx, accumulate)

    def on_validation_epoch_start(self) -> None:
        """Start new sums."""
        self.val_metrics = RunningMetrics.create(self.device)

    def on_validation_model_eval(self) -> None:
        """Set evaluation mode for the parts that are not in it.

        By default Lightning walks through every module before and after validation, and frees gradients: a tenth of the
        time of 25 epochs on cached features.
        """
        for part in self.phase.active_parts if self.phase else ():
            self.network.get_part(part.name).eval()

    def on_validation_model_train(self) -> None:
        """Do nothing: the start of the next epoch sets the modes."""

    def on_validation_model_zero_grad(self) -> None:
        """Do nothing: the next step frees gradients."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the batch to the validation metrics."""
        assert self.val_metrics is not None
        logits, labels = self.compute_logits(batch), batch.labels
        self.val_metrics.update(F.cross_entropy(logits, labels), logits, labels)

    def on_validation_epoch_end(self) -> None:
        """Log validation loss and accuracy; the loss is also for the schedule."""
        assert self.val_metrics is not None
        loss, accuracy = self.val_metrics.compute_means()
        self.val_losses.append(loss)
        self.log_dict({"val/loss": loss, "val/accuracy": accuracy}, logger=False)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Return logits, float32 on the CPU, and positions in the table of samples."""
        return self.compute_logits(batch).float().cpu(), batch.positions.cpu()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the validation losses so far."""
        checkpoint["val_losses"] = list(self.val_losses)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the validation losses so far.

        Raises:
            UserError: if the run took another number of optimizer steps in an epoch, so that its schedule would jump.
        """
        self.val_losses = list(checkpoint["val_losses"])
        num_steps, num_epochs = checkpoint["global_step"], checkpoint["epoch"] + 1
        if num_steps != num_epochs * self.optimization.steps_per_epoch:
            got = f"{self.optimization.steps_per_epoch} optimizer steps in an epoch"
            fix = "trainer.batch_size and trainer.accumulate_grad_batches for as many images in a step as before"
            problem = Problem("devices and batches", got, f"{num_steps / num_epochs:g}, as in the epochs so far", fix)
            raise UserError("the run cannot continue with another batch size.", [problem])


class ClassificationLoss(nn.Module):
    """Mean cross-entropy for training. `class_weights` is float [classes], the weight of an image by its label."""

    class_weights: Tensor | None

    def __init__(self, label_smoothing: float, class_weights: Tensor | None = None) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("class_weights", class_weights, persistent=False)

    def forward(self, logits: Tensor, labels: Tensor, augmentation_params: dict[str, Tensor]) -> Tensor:
        """Compute the loss of logits [n, classes] and labels [n]. Mixed images have both labels, by their shares."""
        options: dict[str, Any] = {"label_smoothing": self.label_smoothing, "weight": self.class_weights}
        loss = F.cross_entropy(logits, labels, **options, reduction="none")
        if "partner" in augmentation_params:
            partner_labels, share = labels[augmentation_params["partner"]], augmentation_params["share"]
            partner_loss = F.cross_entropy(logits, partner_labels, **options, reduction="none")
            loss = share * loss + (1 - share) * partner_loss
        return loss.mean()


@dataclass
class RunningMetrics:
    """Sums of loss and correct answers over images, and their count, as one tensor on the device.

    The tensor is float64, float32 on MPS. No step waits for the device.
    """

    sums: Tensor

    @staticmethod
    def create(device: torch.device) -> RunningMetrics:
        """Create sums of zero on `device`."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return RunningMetrics(torch.zeros(3, dtype=dtype, device=device))

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch with its mean loss, logits [n, classes] and labels [n]."""
        num_correct = (logits.argmax(1) == labels).sum()
        count = labels.shape[0]
        self.sums += torch.stack([loss.detach() * count, num_correct, num_correct.new_tensor(count)]).to(self.sums)

    def is_finite(self) -> bool:
        """Return whether the sum of losses over all processes is finite. All processes have to call it."""
        return bool(torch.isfinite(all_reduce_sum(self.sums)[0]))

    def compute_means(self) -> tuple[float, float]:
        """Compute mean loss and accuracy over all processes, nan if there were no images. All have to call it."""
        loss_sum, num_correct, count = all_reduce_sum(self.sums).tolist()
        return (loss_sum / count, num_correct / count) if count else (float("nan"), float("nan"))
