"""The LightningModule: follows the plan, and keeps its sums on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.config.errors import format_names
from thaw.data.batches import Batch, EpochBatchSampler
from thaw.data.preprocessing import Preprocessing
from thaw.data.test_time_augmentation import average_over_views
from thaw.data.transforms import apply_augmentation
from thaw.models.network import HEAD, Network, Normalize
from thaw.models.parameters import get_batchnorm_layers
from thaw.runs.history import selection_score
from thaw.strategy.plan import PhasePlan, Plan
from thaw.system.process import seed_everything
from thaw.training.distributed.collectives import all_reduce_sum, average_statistics, mismatched_tensors
from thaw.training.distributed.fsdp import is_sharded, replicated, shard
from thaw.training.l2_sp import L2SPRegularizer
from thaw.training.optimizers import (
    apply_phase,
    collect_trainable_parameters,
    parameter_groups,
    set_modes,
    set_weight_decay,
)

OptimizerFactory = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
Schedule = Callable[[int, int, Sequence[float]], float]
STEPS_PER_CHECK = 50  # on a GPU, where asking for the loss waits for the device, and where processes ask each other


class NonFiniteLossError(Exception):
    """The loss is no number any more; carries the epoch, the step and the learning rates by part."""

    def __init__(self, epoch: int, step: int, learning_rates: dict[str, float]) -> None:
        super().__init__(f"epoch {epoch + 1}, step {step}")
        self.epoch, self.step, self.learning_rates = epoch, step, learning_rates


@dataclass
class RunningMetrics:
    """Sums over images of loss and right answers, and their count, as one float64 tensor on the device."""

    values: Tensor

    @staticmethod
    def create(device: torch.device) -> RunningMetrics:
        dtype = torch.float32 if device.type == "mps" else torch.float64
        return RunningMetrics(torch.zeros(3, dtype=dtype, device=device))

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        num_correct = (logits.argmax(1) == labels).sum()
        count = labels.shape[0]
        self.values += torch.stack([loss.detach() * count, num_correct, num_correct.new_tensor(count)]).to(self.values)

    def compute_means(self) -> tuple[float, float]:
        """Loss and accuracy over all processes; nan where nothing was added."""
        loss_sum, num_correct, count = all_reduce_sum(self.values).tolist()
        return (loss_sum / count, num_correct / count) if count else (float("nan"), float("nan"))


class ClassificationModule(pl.LightningModule):
    """Trains `network` on uint8 batches as `plan` says. `schedule(step, epochs, losses)` multiplies every learning rate
    at a step of a schedule of so many epochs, given the validation losses since its start; `about` is what checkpoints
    say of themselves. `class_weights` is float [classes], the weight in the training loss of an image by its label.
    `is_divided`: each process holds a piece of every weight."""

    class_weights: Tensor | None

    def __init__(
        self,
        network: Network,
        plan: Plan,
        preprocessing: Preprocessing,
        build_optimizer: OptimizerFactory,
        schedule: Schedule,
        steps_per_epoch: int,
        *,
        seed: int,
        label_smoothing: float,
        decay_norms_and_biases: bool,
        memory_format: torch.memory_format,
        metadata: dict[str, Any],
        l2_sp: float = 0.0,
        class_weights: Tensor | None = None,
        is_fsdp: bool = False,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=memory_format)
        self.plan, self.build_optimizer, self.schedule, self.steps_per_epoch = (
            plan,
            build_optimizer,
            schedule,
            steps_per_epoch,
        )
        self.val_losses: list[float] = []
        self.phase: PhasePlan | None = None  # that the network is set up for
        self.selection_score = 0.0  # of the epoch that ended last; what `best.ckpt` goes by
        self.seed, self.label_smoothing, self.memory_format = seed, label_smoothing, memory_format
        self.decay_norms_and_biases, self.metadata, self.is_fsdp = decay_norms_and_biases, metadata, is_fsdp
        trained_ids = {id(tensor) for tensor in collect_trainable_parameters(network, plan, [*network.stages, HEAD])}
        for parameter in network.parameters():  # what never trains takes no part in the exchange of gradients
            parameter.requires_grad_(id(parameter) in trained_ids)
        self.l2_sp_regularizer = self._build_l2_sp_regularizer(l2_sp) if l2_sp else None
        self.size = preprocessing.size
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.normalise = Normalize(preprocessing)

    def _build_l2_sp_regularizer(self, strength: float) -> L2SPRegularizer:
        return L2SPRegularizer(collect_trainable_parameters(self.network, self.plan, self.network.stages), strength)

    def configure_model(self) -> None:
        """Divides the network, on the device: before the optimizer is built, and before a checkpoint is read."""
        if not self.is_fsdp or is_sharded(self.network):
            return
        assert self.device_mesh is not None
        shard(self.network, self.device_mesh["data_parallel"])
        if self.l2_sp_regularizer:
            self.l2_sp_regularizer = self._build_l2_sp_regularizer(self.l2_sp_regularizer.strength)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, 3, size, size] on the 0..255 scale."""
        logits: Tensor = self.network(self.normalise(images).contiguous(memory_format=self.memory_format))
        return logits

    def compute_logits(self, batch: Batch) -> Tensor:
        """Of images, augmented where the batch says so, or of what the network's first stages have made of them."""
        if batch.depth:
            return self.network.forward_from(batch.images, batch.depth)
        if batch.images.ndim == 5:
            return average_over_views(self, batch.images)
        return self.forward(
            apply_augmentation(batch.images, batch.augmentation_params, self.size)
            if batch.augmentation_params
            else batch.images
        )

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.build_optimizer(parameter_groups(self.network, self.decay_norms_and_biases))

    def compute_learning_rates(self, step: int) -> dict[str, float]:
        """The learning rate of every part at an optimizer step, counted from the run's start: its rate in the phase of
        that step's epoch, times the schedule. No scheduler object: torch's break on phases, and hold what resuming
        would have to restore."""
        epoch = step // self.steps_per_epoch
        phase = self.plan.get_phase(epoch)
        start, end = phase.schedule
        factor = self.schedule(step - start * self.steps_per_epoch, end - start, self.val_losses[start:epoch])
        return {part.name: part.learning_rate * factor for part in phase.parts}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["thaw"] = self.metadata
        checkpoint["val_losses"] = list(self.val_losses)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.val_losses = list(checkpoint["val_losses"])

    def on_fit_start(self) -> None:
        if self.l2_sp_regularizer:
            self.l2_sp_regularizer.to(self.device)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.l2_sp_regularizer:
            self.l2_sp_regularizer.add_to_gradients()

    def on_train_epoch_start(self) -> None:
        phase, optimizer = self.plan.get_phase(self.current_epoch), self.trainer.optimizers[0]
        if phase is self.phase:
            set_modes(self.network, self.phase.active_parts)
        else:
            apply_phase(self.network, phase)
            self.phase = phase
        set_weight_decay(optimizer.param_groups, phase)
        if phase.restarts_optimizer and phase.start == self.current_epoch:
            optimizer.state.clear()
        seed_everything(self.seed, "epoch", self.current_epoch, self.global_rank)
        # Lightning's own count for samplers is one epoch behind after a resume (2.6.6).
        self._get_batch_sampler().set_epoch(self.current_epoch)
        self.train_metrics = RunningMetrics.create(self.device)

    def _get_batch_sampler(self) -> EpochBatchSampler:
        loader: Any = self.trainer.train_dataloader
        batch_sampler: EpochBatchSampler = loader.batch_sampler
        return batch_sampler

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        learning_rates = self.compute_learning_rates(self.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = learning_rates[group["part"]]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self.compute_logits(batch)
        loss = self._compute_loss(logits, batch.labels, batch.augmentation_params)
        self.train_metrics.update(loss, logits, batch.labels)
        is_alone_on_cpu = self.device.type == "cpu" and self.trainer.world_size == 1
        if is_alone_on_cpu or batch_idx % STEPS_PER_CHECK == 0:
            self._check_finite(batch_idx)
        return loss * self._get_batch_sampler().compute_batch_weight(batch_idx)

    def _compute_loss(self, logits: Tensor, labels: Tensor, augmentation_parameters: dict[str, Tensor]) -> Tensor:
        """Mean cross-entropy; of images that are mixed, with both labels by their shares."""
        options: dict[str, Any] = {"label_smoothing": self.label_smoothing, "weight": self.class_weights}
        loss = F.cross_entropy(logits, labels, **options, reduction="none")
        if "partner" in augmentation_parameters:
            partner_labels = labels[augmentation_parameters["partner"]]
            partner_loss = F.cross_entropy(logits, partner_labels, **options, reduction="none")
            loss = augmentation_parameters["share"] * loss + (1 - augmentation_parameters["share"]) * partner_loss
        return loss.mean()

    def on_train_epoch_end(self) -> None:
        self._check_finite(int(self.trainer.num_training_batches))
        if not self.trainer.val_dataloaders:
            self.synchronize()
            self.selection_score = float(self.current_epoch)  # nothing to choose by: the last epoch is the best

    def _check_finite(self, step: int) -> None:
        if not torch.isfinite(all_reduce_sum(self.train_metrics.values)[0]):  # so that all processes end together
            raise NonFiniteLossError(self.current_epoch, step, self.compute_learning_rates(self.global_step))

    def synchronize(self) -> None:
        """Weights are equal in all processes after every step, those that are divided being held once; BatchNorm's
        statistics after every epoch."""
        if self.trainer.world_size == 1:
            return
        part_names = [part.name for part in self.plan.get_phase(self.current_epoch).parts if part.batchnorm != "eval"]
        average_statistics(
            [layer for name in part_names for layer in get_batchnorm_layers(self.network.get_part(name))]
        )
        # torch would say nothing of processes that differ, and the result be worth nothing
        if mismatched_names := mismatched_tensors(replicated(self.network.state_dict())):
            raise RuntimeError(
                f"processes differ after epoch {self.current_epoch + 1} in {format_names(mismatched_names, 3)}"
            )

    def on_validation_epoch_start(self) -> None:
        self.synchronize()
        self.val_metrics = RunningMetrics.create(self.device)

    def on_validation_model_eval(self) -> None:
        """Of what is not in evaluation mode anyway. By default Lightning walks through every module, before validation
        and behind it, and frees gradients: a tenth of the time of 25 epochs over cached features."""
        for part in self.phase.active_parts if self.phase else ():
            self.network.get_part(part.name).eval()

    def on_validation_model_train(self) -> None:
        """The next epoch's start sets the modes."""

    def on_validation_model_zero_grad(self) -> None:
        """The next step does."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits, labels = self.compute_logits(batch), batch.labels
        self.val_metrics.update(F.cross_entropy(logits, labels), logits, labels)

    def on_validation_epoch_end(self) -> None:
        loss, accuracy = self.val_metrics.compute_means()
        self.val_losses.append(loss)
        self.selection_score = selection_score(accuracy, loss)
        self.log_dict({"val/loss": loss, "val/accuracy": accuracy}, logger=False)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Logits, float32 on the CPU, and positions in the table of samples."""
        return self.compute_logits(batch).float().cpu(), batch.positions.cpu()
