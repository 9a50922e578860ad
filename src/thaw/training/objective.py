"""The optimizer's parameter groups, and the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Optimizer
from thaw.network.kinds import batchnorms, parameters_of
from thaw.network.network import HEAD, Network
from thaw.strategy.plan import PartPlan, PhasePlan, Plan
from thaw.training.optimizers import NOT_BUILT, constructor_arguments, optimizer_class


def parameter_groups(network: Network, decay_norms_and_biases: bool) -> list[dict[str, Any]]:
    """One group a part and kind, of all that ever trains (`requires_grad`), what is still frozen too: schedulers and
    checkpoints break on groups that come later. `part` is the stage's name, `decays` whether weight decay acts on it
    (norms and biases are vectors, weights are not)."""
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
    parameters = [one for one in part.parameters() if one.requires_grad]
    return [one for one in parameters if one.ndim > 1], [one for one in parameters if one.ndim <= 1]


def built_optimizer(optimizer: Optimizer, groups: list[dict[str, Any]], fused: bool) -> torch.optim.Optimizer:
    """Raises UserFault where there is no such class, or where it refuses its arguments or the groups."""
    kind: Any = optimizer_class(optimizer.name)
    arguments = constructor_arguments(kind, optimizer, fused)
    try:
        built: torch.optim.Optimizer = kind(groups, **arguments)
    except (TypeError, ValueError) as error:
        fault = Fault(f"optimizer.name={optimizer.name} with optimizer.arguments={optimizer.arguments}", str(error))
        raise UserFault(NOT_BUILT, [fault]) from error
    return built


def set_weight_decay(groups: list[dict[str, Any]], phase: PhasePlan) -> None:
    decays = {part.name: part.weight_decay for part in phase.parts}
    for group in groups:
        group["weight_decay"] = decays[group["part"]] if group["decays"] else 0.0


def apply_phase(network: Network, phase: PhasePlan) -> None:
    """Sets what trains, and the mode of every part. A frozen part runs in evaluation mode, but for the BatchNorm that
    its phase asks for: its dropout would change its output, though its weights do not."""
    for part in phase.parts:
        module = network.part(part.name)
        module.requires_grad_(False)
        for parameter in trained_in(module, part):
            parameter.requires_grad_(True)
    set_modes(network, phase.parts)
    network.frontier = phase.frontier


def set_modes(network: Network, parts: Iterable[PartPlan]) -> None:
    for part in parts:
        module = network.part(part.name)
        module.train(part.trainable)
        for layer in batchnorms(module):
            layer.train(part.batchnorm != "eval")


def trained_in(module: nn.Module, part: PartPlan) -> list[nn.Parameter]:
    chosen = parameters_of(module, part.parameters) if part.trainable else []
    if part.batchnorm == "statistics":
        still = {id(one) for layer in batchnorms(module) for one in layer.parameters()}
        return [one for one in chosen if id(one) not in still]
    return chosen


def trained_parameters(network: Network, plan: Plan, names: Iterable[str]) -> list[nn.Parameter]:
    """What of the parts `names` trains in some phase."""
    wanted = set(names)
    parts = [part for phase in plan.phases for part in phase.parts if part.name in wanted]
    return list({id(one): one for part in parts for one in trained_in(network.part(part.name), part)}.values())
