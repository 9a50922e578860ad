"""Averages of the weights over steps or epochs, which take the weights' place outside training.

Lightning's WeightAveraging (2.6.6) does not serve here: a callback is not heard when a checkpoint of weights alone is
saved, so best.ckpt would hold weights that were never validated; what it averages at an epoch's end comes after that
epoch's validation; and it copies and swaps the whole module, frozen weights too.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from thaw.config.schema import ExponentialAverage, Trainer
from thaw.network.kinds import batchnorms
from thaw.network.network import HEAD, Network
from thaw.strategy.plan import Plan
from thaw.training.learner import Learner
from thaw.training.objective import trained_parameters


def averaging_of(trainer: Trainer) -> Averaging | None:
    """None where the recipe asks for none."""
    kind = trainer.averaging
    if kind is None:
        return None
    if isinstance(kind, ExponentialAverage):
        return Averaging(partial(exponential_share, kind.decay), each_step=True)
    return Averaging(lambda epochs: 1 / epochs, each_step=False, first_epoch=kind.first_epoch(trainer.epochs))


def exponential_share(decay: float, steps: int) -> float:
    """The share of the newest weights in the average after so many steps: 1 - `decay`, and more at the start, where the
    average would else remember the untrained weights: 1 - (1 + steps) / (10 + steps), as TensorFlow's
    ExponentialMovingAverage corrects."""
    return 1 - min(decay, (1 + steps) / (10 + steps))


class Averaging(Callback):
    """From `first_epoch` on the network holds the average between the last step of an epoch and the first of the next:
    it is what is validated, and the `state_dict` of checkpoints. A checkpoint to resume from has the weights themselves
    under `trained`.

    `share(n)` is the share of the newest weights in the n-th average, n being the number of optimizer steps, or with
    `each_step` false the number of epochs since `first_epoch`: 1/n is the plain mean (SWA, Izmailov et al. 2018). What
    never trains is not averaged. Running statistics of BatchNorm are averaged along with the weights. Recomputing them
    over the train images, as that paper does, costs a pass an epoch and gives the same: captcha at 48 px, 30 images a
    class, 10 epochs at a constant rate, the last 5 averaged, 1,440 test images: AdamW 0.625 averaged, 0.621 recomputed,
    0.581 without SWA; SGD 0.730, 0.734, 0.669 (a seed each, standard error 0.012).
    """

    def __init__(self, share: Callable[[int], float], each_step: bool, first_epoch: int = 0) -> None:
        self.share, self.each_step, self.first_epoch = share, each_step, first_epoch
        self.loaded: dict[str, Tensor] = {}

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.loaded = checkpoint.get("trained", {})

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, Learner)
        self.held = what_trains(pl_module.network, pl_module.plan)
        # `aside` are the averages while the network trains, the weights while it holds the averages.
        self.aside = {
            name: self.loaded.get(name, one).detach().to(one.device, copy=True) for name, one in self.held.items()
        }
        self.holds_average = bool(self.loaded)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.holds_average:
            self._exchange()

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.steps_before = trainer.global_step

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.each_step and trainer.global_step > self.steps_before:  # not while gradients accumulate
            self._average(trainer.global_step)
        if batch_idx + 1 == trainer.num_training_batches and trainer.current_epoch >= self.first_epoch:
            assert isinstance(pl_module, Learner)
            pl_module.agree()
            if not self.each_step:
                self._average(trainer.current_epoch - self.first_epoch + 1)
            self._exchange()

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.holds_average:
            checkpoint["trained"] = self.aside

    @torch.no_grad()
    def _average(self, count: int) -> None:
        torch._foreach_lerp_(list(self.aside.values()), list(self.held.values()), self.share(count))

    def _exchange(self) -> None:
        """Swaps storages: nothing is copied."""
        for name, one in self.held.items():
            one.data, self.aside[name].data = self.aside[name].data, one.data
        self.holds_average = not self.holds_average


def what_trains(network: Network, plan: Plan) -> dict[str, Tensor]:
    """Parameters that train in some phase, and running statistics that are gathered in some phase, by name."""
    gathering = {part.name for phase in plan.phases for part in phase.parts if part.batchnorm != "eval"}
    layers = [layer for name in gathering for layer in batchnorms(network.part(name))]
    statistics = [one for layer in layers for one in layer.buffers() if one.is_floating_point()]
    wanted = {id(one) for one in (*trained_parameters(network, plan, [*network.stages, HEAD]), *statistics)}
    everything = (*network.named_parameters(), *network.named_buffers())
    return {name: one for name, one in everything if id(one) in wanted}
