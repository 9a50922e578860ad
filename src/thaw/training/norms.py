"""How long the gradient and the weights of each part are: one look an epoch, at its last step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor
from torch.nn.utils import get_total_norm

from thaw.training.sharding import whole


class Norms(Callback):
    """Scalars `grad_norm/PART` and `weight_norm/PART` of all that trains: the Euclidean norm over all parameters of the
    part, at the epoch's last step, before gradients are clipped and weights move. What is frozen has none.

    They stay on the device until the epoch ends, so no step waits for them. An epoch takes 0.4 ms longer where a head
    trains on cached features, 6 ms where EfficientNet-Lite0 is fine-tuned (2 cores).
    """

    def __init__(self) -> None:
        self.parts: list[str] = []
        self.found: Tensor | None = None

    def on_before_optimizer_step(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        if trainer.is_last_batch:  # in all processes: where weights are divided, each holds a piece of every norm
            self.parts, self.found = norms_by_part(optimizer.param_groups)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.found is None:
            return
        scalars = {
            f"{kind}/{part}": value
            for kind, values in zip(("grad_norm", "weight_norm"), self.found.tolist(), strict=True)
            for part, value in zip(self.parts, values, strict=True)
        }
        assert trainer.logger is not None
        trainer.logger.log_metrics(scalars, step=trainer.current_epoch + 1)
        self.found = None


@torch.no_grad()
def norms_by_part(groups: Sequence[dict[str, Any]]) -> tuple[list[str], Tensor | None]:
    """Names of the parts of an optimizer's `groups` that have a gradient, and float [2, parts], of gradients and of
    weights; None where no part has any."""
    trained: dict[str, list[Tensor]] = {}
    for group in groups:
        with_gradient = [one for one in group["params"] if one.requires_grad and one.grad is not None]
        if with_gradient:
            trained.setdefault(group["part"], []).extend(with_gradient)
    if not trained:
        return [], None
    rows = [[get_total_norm([one.grad for one in part if one.grad is not None]) for part in trained.values()]]
    rows.append([get_total_norm(part) for part in trained.values()])
    wholes = [list(whole(dict(zip(trained, row, strict=True))).values()) for row in rows]
    return list(trained), torch.stack([torch.stack(row) for row in wholes])
