"""The LightningModule: follows the plan, and keeps its sums on the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.config.faults import listing
from thaw.data.batches import Batch, EpochBatches
from thaw.data.changes import changed
from thaw.data.preprocessing import Preprocessing
from thaw.network.kinds import batchnorms
from thaw.network.network import HEAD, Network
from thaw.network.normalise import Normalise
from thaw.strategy.plan import PhasePlan, Plan
from thaw.training.objective import apply_phase, parameter_groups, set_modes, set_weight_decay, trained_parameters
from thaw.training.process import reseed
from thaw.training.pull import SourcePull
from thaw.training.rank import rank_of
from thaw.training.ranks import average_statistics, differing, summed
from thaw.training.sharding import is_sharded, shard, undivided
from thaw.training.views import over_views

Optimizers = Callable[[list[dict[str, Any]]], torch.optim.Optimizer]
Schedule = Callable[[int, int, Sequence[float]], float]
STEPS_PER_CHECK = 50  # on a GPU, where asking for the loss waits for the device, and where processes ask each other


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
        """Loss and accuracy over all processes; nan where nothing was added."""
        loss, right, count = summed(self.values).tolist()
        return (loss / count, right / count) if count else (float("nan"), float("nan"))


class Learner(pl.LightningModule):
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
        optimizers: Optimizers,
        schedule: Schedule,
        steps_per_epoch: int,
        *,
        seed: int,
        label_smoothing: float,
        decay_norms_and_biases: bool,
        memory_format: torch.memory_format,
        about: dict[str, Any],
        source_pull: float = 0.0,
        class_weights: Tensor | None = None,
        is_divided: bool = False,
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=memory_format)
        self.plan, self.optimizers_of, self.schedule, self.steps_per_epoch = plan, optimizers, schedule, steps_per_epoch
        self.val_losses: list[float] = []
        self.phase: PhasePlan | None = None  # that the network is set up for
        self.rank = 0.0  # of the epoch that ended last; what `best.ckpt` goes by
        self.seed, self.label_smoothing, self.memory_format = seed, label_smoothing, memory_format
        self.decay_norms_and_biases, self.about, self.is_divided = decay_norms_and_biases, about, is_divided
        trained = {id(one) for one in trained_parameters(network, plan, [*network.stages, HEAD])}
        for parameter in network.parameters():  # what never trains takes no part in the exchange of gradients
            parameter.requires_grad_(id(parameter) in trained)
        self.pull = self._pull(source_pull) if source_pull else None
        self.size = preprocessing.size
        self.register_buffer("class_weights", class_weights, persistent=False)
        self.normalise = Normalise(preprocessing)

    def _pull(self, strength: float) -> SourcePull:
        return SourcePull(trained_parameters(self.network, self.plan, self.network.stages), strength)

    def configure_model(self) -> None:
        """Divides the network, on the device: before the optimizer is built, and before a checkpoint is read."""
        if not self.is_divided or is_sharded(self.network):
            return
        assert self.device_mesh is not None
        shard(self.network, self.device_mesh["data_parallel"])
        if self.pull:
            self.pull = self._pull(self.pull.strength)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return 3, self.size, self.size

    def forward(self, images: Tensor) -> Tensor:
        """Logits [n, classes] of images [n, 3, size, size] on the 0..255 scale."""
        logits: Tensor = self.network(self.normalise(images).contiguous(memory_format=self.memory_format))
        return logits

    def logits(self, batch: Batch) -> Tensor:
        """Of images, augmented where the batch says so, or of what the network's first stages have made of them."""
        if batch.depth:
            return self.network.after(batch.images, batch.depth)
        if batch.images.ndim == 5:
            return over_views(self, batch.images)
        return self.forward(changed(batch.images, batch.drawn, self.size) if batch.drawn else batch.images)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizers_of(parameter_groups(self.network, self.decay_norms_and_biases))

    def rates_at(self, step: int) -> dict[str, float]:
        """The learning rate of every part at an optimizer step, counted from the run's start: its rate in the phase of
        that step's epoch, times the schedule. No scheduler object: torch's break on phases, and hold what resuming
        would have to restore."""
        epoch = step // self.steps_per_epoch
        phase = self.plan.at(epoch)
        start, end = phase.schedule
        factor = self.schedule(step - start * self.steps_per_epoch, end - start, self.val_losses[start:epoch])
        return {part.name: part.learning_rate * factor for part in phase.parts}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["thaw"] = self.about
        checkpoint["val_losses"] = list(self.val_losses)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.val_losses = list(checkpoint["val_losses"])

    def on_fit_start(self) -> None:
        if self.pull:
            self.pull.to(self.device)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if self.pull:
            self.pull.add_to_gradients()

    def on_train_epoch_start(self) -> None:
        phase, optimizer = self.plan.at(self.current_epoch), self.trainer.optimizers[0]
        if phase is self.phase:
            set_modes(self.network, self.phase.moving)
        else:
            apply_phase(self.network, phase)
            self.phase = phase
        set_weight_decay(optimizer.param_groups, phase)
        if phase.restarts_optimizer and phase.start == self.current_epoch:
            optimizer.state.clear()
        reseed(self.seed, "epoch", self.current_epoch, self.global_rank)
        # Lightning's own count for samplers is one epoch behind after a resume (2.6.6).
        self._batches().set_epoch(self.current_epoch)
        self.train_sums = Sums.on(self.device)

    def _batches(self) -> EpochBatches:
        loader: Any = self.trainer.train_dataloader
        batches: EpochBatches = loader.order
        return batches

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        rates = self.rates_at(self.global_step)
        for group in self.trainer.optimizers[0].param_groups:
            group["lr"] = rates[group["part"]]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        logits = self.logits(batch)
        loss = self._loss(logits, batch.labels, batch.drawn)
        self.train_sums.add(loss, logits, batch.labels)
        is_alone_on_cpu = self.device.type == "cpu" and self.trainer.world_size == 1
        if is_alone_on_cpu or batch_idx % STEPS_PER_CHECK == 0:
            self._check_finite(batch_idx)
        return loss * self._batches().weight(batch_idx)

    def _loss(self, logits: Tensor, labels: Tensor, drawn: dict[str, Tensor]) -> Tensor:
        """Mean cross-entropy; of images that are mixed, with both labels by their shares."""
        how: dict[str, Any] = {"label_smoothing": self.label_smoothing, "weight": self.class_weights}
        loss = F.cross_entropy(logits, labels, **how, reduction="none")
        if "partner" in drawn:
            others = labels[drawn["partner"]]
            mixed = F.cross_entropy(logits, others, **how, reduction="none")
            loss = drawn["share"] * loss + (1 - drawn["share"]) * mixed
        return loss.mean()

    def on_train_epoch_end(self) -> None:
        self._check_finite(int(self.trainer.num_training_batches))
        if not self.trainer.val_dataloaders:
            self.agree()
            self.rank = float(self.current_epoch)  # nothing to choose by: the last epoch is the best

    def _check_finite(self, step: int) -> None:
        if not torch.isfinite(summed(self.train_sums.values)[0]):  # so that all processes end together
            raise NotFinite(self.current_epoch, step, self.rates_at(self.global_step))

    def agree(self) -> None:
        """Weights are equal in all processes after every step, those that are divided being held once; BatchNorm's
        statistics after every epoch."""
        if self.trainer.world_size == 1:
            return
        gathering = [part.name for part in self.plan.at(self.current_epoch).parts if part.batchnorm != "eval"]
        average_statistics([layer for name in gathering for layer in batchnorms(self.network.part(name))])
        # torch would say nothing of processes that differ, and the result be worth nothing
        if apart := differing(undivided(self.network.state_dict())):
            raise RuntimeError(f"processes differ after epoch {self.current_epoch + 1} in {listing(apart, 3)}")

    def on_validation_epoch_start(self) -> None:
        self.agree()
        self.val_sums = Sums.on(self.device)

    def on_validation_model_eval(self) -> None:
        """Of what is not in evaluation mode anyway. By default Lightning walks through every module, before validation
        and behind it, and frees gradients: a tenth of the time of 25 epochs over cached features."""
        for part in self.phase.moving if self.phase else ():
            self.network.part(part.name).eval()

    def on_validation_model_train(self) -> None:
        """The next epoch's start sets the modes."""

    def on_validation_model_zero_grad(self) -> None:
        """The next step does."""

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        logits, labels = self.logits(batch), batch.labels
        self.val_sums.add(F.cross_entropy(logits, labels), logits, labels)

    def on_validation_epoch_end(self) -> None:
        loss, accuracy = self.val_sums.means()
        self.val_losses.append(loss)
        self.rank = rank_of(accuracy, loss)
        self.log_dict({"val/loss": loss, "val/accuracy": accuracy}, logger=False)

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> tuple[Tensor, Tensor]:
        """Logits, float32 on the CPU, and positions in the table of samples."""
        return self.logits(batch).float().cpu(), batch.positions.cpu()
