"""The optimizer's parameter groups, and the optimizer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from thaw.config.schema import Adam, Sgd
from thaw.network.network import HEAD, Network
from thaw.strategy.plan import PhasePlan


def parameter_groups(network: Network, decay_norms_and_biases: bool) -> list[dict[str, Any]]:
    """One group a part and kind, frozen ones too: schedulers and checkpoints break on groups that come later. `part`
    is the stage's name, `decays` whether weight decay acts on it (norms and biases are vectors, weights are not)."""
    return list(_groups(network, decay_norms_and_biases))


def _groups(network: Network, decay_vectors: bool) -> Iterator[dict[str, Any]]:
    for part in (*network.stages, HEAD):
        weights, vectors = _weights_and_vectors(network.part(part))
        if decay_vectors:
            weights, vectors = weights + vectors, []
        for decays, parameters in ((True, weights), (False, vectors)):
            if parameters:
                yield {"params": parameters, "part": part, "decays": decays, "lr": 1.0, "weight_decay": 0.0}


def _weights_and_vectors(part: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    parameters = list(part.parameters())
    return [one for one in parameters if one.ndim > 1], [one for one in parameters if one.ndim <= 1]


def built_optimizer(optimizer: Sgd | Adam, groups: list[dict[str, Any]], fused: bool) -> torch.optim.Optimizer:
    if isinstance(optimizer, Sgd):
        return torch.optim.SGD(groups, 1.0, momentum=optimizer.momentum, nesterov=optimizer.nesterov, fused=fused)
    kind: type[torch.optim.Adam] = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[optimizer.name]
    return kind(groups, 1.0, betas=(optimizer.betas[0], optimizer.betas[1]), eps=optimizer.epsilon, fused=fused)


def set_weight_decay(groups: list[dict[str, Any]], phase: PhasePlan) -> None:
    decays = {part.name: part.weight_decay for part in phase.parts}
    for group in groups:
        group["weight_decay"] = decays[group["part"]] if group["decays"] else 0.0


def apply_phase(network: Network, phase: PhasePlan) -> None:
    """Sets what trains, and the mode of every part. A frozen part runs in evaluation mode as a whole: its BatchNorm
    statistics and its dropout would change its output, though its weights do not."""
    for part in phase.parts:
        module = network.part(part.name)
        module.requires_grad_(part.trainable)
        module.train(part.batchnorm == "train")
    network.frontier = phase.frontier
