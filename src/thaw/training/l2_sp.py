"""L2-SP: weight decay towards the pretrained weights instead of towards zero."""

from __future__ import annotations

from collections.abc import Mapping

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor, nn

from thaw.models.network import Network
from thaw.strategy.plan import Plan
from thaw.training.distributed.fsdp import shard_like
from thaw.training.freezing import collect_trainable_parameters
from thaw.training.module import ClassificationModule


class L2SPRegularizer(Callback):
    """Adds `strength` x (weight - pretrained weight) to gradients before each optimizer step.

    That is the gradient of strength / 2 times the squared distance (Li, Grandvalet and Davoine 2018, "Explicit
    inductive bias for transfer learning"). Copies the pretrained weights when it is created, so before a checkpoint is
    loaded.
    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], strength: float) -> None:
        self.parameters, self.strength = dict(parameters), strength
        self.pretrained: dict[str, Tensor] = {
            name: parameter.detach().clone() for name, parameter in parameters.items()
        }

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Move the copies to the device. FSDP has replaced the parameters by shards."""
        assert isinstance(pl_module, ClassificationModule)
        parameters = dict(pl_module.network.named_parameters())
        self.parameters = {name: parameters[name] for name in self.pretrained}
        self.pretrained = {
            name: shard_like(weight.to(pl_module.device), parameters[name]) for name, weight in self.pretrained.items()
        }

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Add the gradients."""
        self.add_to_gradients()

    def add_to_gradients(self) -> None:
        """Add the gradients of the parameters that have one; those that are frozen in this phase have none."""
        gradients = {name: parameter.grad for name, parameter in self.parameters.items() if parameter.grad is not None}
        if gradients:
            weights = [self.parameters[name].detach() for name in gradients]
            differences = torch._foreach_sub(weights, [self.pretrained[name] for name in gradients])
            torch._foreach_add_(list(gradients.values()), differences, alpha=self.strength)


def build_l2_sp_regularizer(network: Network, plan: Plan, strength: float) -> L2SPRegularizer:
    """Build the regularizer of the backbone's parameters that train in some phase."""
    trained_ids = {id(parameter) for parameter in collect_trainable_parameters(network, plan, network.stages)}
    parameters = {name: parameter for name, parameter in network.named_parameters() if id(parameter) in trained_ids}
    return L2SPRegularizer(parameters, strength)
