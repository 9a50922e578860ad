"""How long the gradient and the weights of each part are: one look an epoch, at its last step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.nn.utils import get_total_norm

from thaw.training.distributed.fsdp import full_tensors


class GradientNormCallback(Callback):
    """Scalars `grad_norm/PART` and `weight_norm/PART` of all that trains: the Euclidean norm over all parameters of the
    part, at the epoch's last step, before gradients are clipped and weights move. What is frozen has none.

    They stay on the device until the epoch ends, so no step waits for them. An epoch takes 0.4 ms longer where a head
    trains on cached features, 6 ms where EfficientNet-Lite0 is fine-tuned (2 cores).
    """

    def __init__(self) -> None:
        self.part_names: list[str] = []
        self.norms: Tensor | None = None

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if trainer.is_last_batch:  # in all processes: where weights are divided, each holds a piece of every norm
            self.part_names, self.norms = compute_part_norms(optimizer.param_groups)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.norms is None:
            return
        scalars = {
            f"{kind}/{part}": value
            for kind, values in zip(("grad_norm", "weight_norm"), self.norms.tolist(), strict=True)
            for part, value in zip(self.part_names, values, strict=True)
        }
        assert trainer.logger is not None
        trainer.logger.log_metrics(scalars, step=trainer.current_epoch + 1)
        self.norms = None


@torch.no_grad()
def compute_part_norms(param_groups: Sequence[dict[str, Any]]) -> tuple[list[str], Tensor | None]:
    """Names of the parts of an optimizer's `groups` that have a gradient, and float [2, parts], of gradients and of
    weights; None where no part has any."""
    parameters_by_part: dict[str, list[Tensor]] = {}
    for group in param_groups:
        parameters_with_grad = [
            parameter for parameter in group["params"] if parameter.requires_grad and parameter.grad is not None
        ]
        if parameters_with_grad:
            parameters_by_part.setdefault(group["part"], []).extend(parameters_with_grad)
    if not parameters_by_part:
        return [], None
    norms = [
        [
            get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
            for parameters in parameters_by_part.values()
        ]
    ]
    norms.append([get_total_norm(parameters) for parameters in parameters_by_part.values()])
    full_norms = [list(full_tensors(dict(zip(parameters_by_part, row, strict=True))).values()) for row in norms]
    return list(parameters_by_part), torch.stack([torch.stack(row) for row in full_norms])
