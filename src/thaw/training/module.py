"""The LightningModule that trains a network as its plan says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.strategies import ParallelStrategy
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

HOOKS = ("on_before_backward", "on_before_optimizer_step", "on_batch_end", "on_evaluation_batch_end")


class ClassificationModule(pl.LightningModule):
    """Trains `network` on batches of uint8 images or of cached features.

    The module computes logits, losses and metrics, applies the phases of the plan, sets the learning rates and makes
    the optimizer steps. Everything else is a callback: L2-SP, agreement of processes, checks of the loss, history,
    checkpoints.

    Lightning sees all batches of an epoch as one, since its own loop takes a millisecond for each, longer than a step
    on cached features (`python -m benchmarks.cached`). So it calls its hooks of a batch once in an epoch. For each
    batch the module calls the hooks of callbacks in HOOKS: `on_before_backward` and `on_before_optimizer_step` as
    Lightning defines them, `on_batch_end(trainer, module, batch, loss)` after a training batch, and
    `on_evaluation_batch_end(trainer, module, batch)` after one of validation or prediction.
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
        self.automatic_optimization = False  # the module makes the steps
        self.phase: PhasePlan | None = None  # the phase that is applied to the network
        self.step = 0  # number of optimizer steps since the start of the run
        self.batch_idx, self.num_batches = 0, 0  # of the epoch
        self.hooks: dict[str, list[Callable[..., None]]] = {}  # of the callbacks, by name
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
        self.step = self.optimization.count_steps(self.current_epoch)
        self.num_batches = len(self._get_batch_sampler())
        self.train_metrics = RunningMetrics.create(self.device)

    def _get_batch_sampler(self) -> EpochBatchSampler:
        loader: Any = self.trainer.train_dataloader
        batch_sampler: EpochBatchSampler = loader.batch_sampler
        return batch_sampler

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Return the batches of an epoch as they are: they are moved one by one."""
        return batch

    def training_step(self, batches: Iterator[Batch], batch_idx: int) -> None:
        """Make the optimizer steps of an epoch, or those until a callback stops the training."""
        optimizer, accumulate = self.trainer.optimizers[0], self.optimization.accumulate_grad_batches
        for index, batch in enumerate(self._iter_on_device(batches)):
            self.batch_idx = index
            if index % accumulate == 0:
                optimizer.zero_grad()
                self._set_learning_rates(optimizer)
            loss = self.compute_training_loss(batch)
            with torch.autocast(self.device.type, enabled=False):  # it is for the forward pass
                self._backward(loss)
                if self._is_step_due():
                    self._make_step(optimizer)
                self._call_hooks("on_batch_end", batch, loss.detach())
            if self.trainer.should_stop:
                return

    @property
    def is_last_batch(self) -> bool:
        """Whether the current batch is the last of the epoch."""
        return self.batch_idx + 1 == self.num_batches

    def _set_learning_rates(self, optimizer: torch.optim.Optimizer) -> None:
        learning_rates = self.compute_learning_rates(self.step)
        for group in optimizer.param_groups:
            group["lr"] = learning_rates[group["part"]]

    def compute_training_loss(self, batch: Batch) -> Tensor:
        """Compute the share of a batch in the loss of its optimizer step, in which each image counts the same. DDP
        averages the gradients of the processes."""
        assert self.train_metrics is not None
        logits = self.compute_logits(batch)
        loss: Tensor = self.criterion(logits, batch.labels, batch.augmentation_params)
        self.train_metrics.update(loss, logits, batch.labels)
        accumulate = self.optimization.accumulate_grad_batches
        weight = self._get_batch_sampler().compute_batch_weight(self.batch_idx, accumulate)
        return loss if weight == 1 else loss * weight

    def _is_step_due(self) -> bool:
        """Return whether the optimizer step follows the current batch; if not, further batches add to its gradients."""
        return self.is_last_batch or (self.batch_idx + 1) % self.optimization.accumulate_grad_batches == 0

    def _backward(self, loss: Tensor) -> None:
        """Compute the gradients. Processes exchange them before the optimizer step."""
        strategy, scaler = self.trainer.strategy, self._grad_scaler
        self._call_hooks("on_before_backward", loss)
        is_partial = not self._is_step_due()
        with strategy.block_backward_sync() if is_partial and isinstance(strategy, ParallelStrategy) else nullcontext():
            strategy.pre_backward(loss)
            (scaler.scale(loss) if scaler else loss).backward()  # type: ignore[no-untyped-call]
            strategy.post_backward(loss)

    def _make_step(self, optimizer: torch.optim.Optimizer) -> None:
        scaler, clip_val = self._grad_scaler, self.optimization.gradient_clip_val
        if scaler:
            scaler.unscale_(optimizer)
        self._call_hooks("on_before_optimizer_step", optimizer)
        if clip_val:
            self.trainer.precision_plugin.clip_gradients(optimizer, clip_val)
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        self.step += 1

    @property
    def _grad_scaler(self) -> torch.amp.GradScaler | None:
        """The scaler of 16-mixed precision."""
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def _iter_on_device(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Find the hooks of the callbacks, and yield each batch on the device in the precision of the network."""
        self.hooks = {name: self._find_hooks(name) for name in HOOKS}
        for batch in batches:
            yield self.trainer.precision_plugin.convert_input(batch.to(self.device))

    def _find_hooks(self, name: str) -> list[Callable[..., None]]:
        """Find the hook `name` of the callbacks that define it, in their order."""
        callbacks: list[Callback] = self.trainer.callbacks  # type: ignore[attr-defined]
        default = getattr(Callback, name, None)
        return [getattr(callback, name) for callback in callbacks if getattr(type(callback), name, default) != default]

    def _call_hooks(self, name: str, *arguments: Any) -> None:
        for hook in self.hooks[name]:
            hook(self.trainer, self, *arguments)

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

    def validation_step(self, batches: Iterator[Batch], batch_idx: int) -> None:
        """Add all batches to the validation metrics."""
        assert self.val_metrics is not None
        for batch in self._iter_evaluated(batches):
            logits, labels = self.compute_logits(batch), batch.labels
            self.val_metrics.update(F.cross_entropy(logits, labels), logits, labels)

    def _iter_evaluated(self, batches: Iterator[Batch]) -> Iterator[Batch]:
        """Yield each batch, then call the hooks."""
        for batch in self._iter_on_device(batches):
            yield batch
            self._call_hooks("on_evaluation_batch_end", batch)

    def on_validation_epoch_end(self) -> None:
        """Log validation loss and accuracy; the loss is also for the schedule."""
        assert self.val_metrics is not None
        loss, accuracy = self.val_metrics.compute_means()
        self.val_losses.append(loss)
        self.log_dict({"val/loss": loss, "val/accuracy": accuracy}, logger=False)

    def predict_step(
        self, batches: Iterator[Batch], batch_idx: int, dataloader_idx: int = 0
    ) -> list[tuple[Tensor, Tensor]]:
        """Return logits, float32 on the CPU, and positions in the table of samples, of each batch."""
        return [
            (self.compute_logits(batch).float().cpu(), batch.positions.cpu()) for batch in self._iter_evaluated(batches)
        ]

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save the number of steps and the validation losses so far."""
        checkpoint["global_step"], checkpoint["val_losses"] = self.step, list(self.val_losses)

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
    """Sums of loss (float64, float32 on MPS) and correct answers (int64) over images, on the device, and their count.

    No step waits for the device.
    """

    loss_sum: Tensor
    num_correct: Tensor
    count: int = 0

    @staticmethod
    def create(device: torch.device) -> RunningMetrics:
        """Create sums of zero on `device`."""
        dtype = torch.float32 if device.type == "mps" else torch.float64
        zero = torch.zeros((), dtype=dtype, device=device)
        return RunningMetrics(zero, torch.zeros_like(zero, dtype=torch.int64))

    def update(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Add a batch with its mean loss, logits [n, classes] and labels [n]."""
        self.loss_sum.add_(loss.detach(), alpha=len(labels))
        self.num_correct.add_((logits.argmax(1) == labels).sum())
        self.count += len(labels)

    def stack(self) -> Tensor:
        """Return sum of losses, number of correct answers and count as a new tensor [3]."""
        return torch.stack([self.loss_sum, self.num_correct, self.num_correct.new_tensor(self.count)])

    def is_finite(self) -> bool:
        """Return whether the sum of losses over all processes is finite. All processes have to call it."""
        return bool(torch.isfinite(all_reduce_sum(self.loss_sum)))

    def compute_means(self) -> tuple[float, float]:
        """Compute mean loss and accuracy over all processes, nan if there were no images. All have to call it."""
        loss_sum, num_correct, count = all_reduce_sum(self.stack()).tolist()
        return (loss_sum / count, num_correct / count) if count else (float("nan"), float("nan"))
