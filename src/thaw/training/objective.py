"""The optimizer's parameter groups, and the optimizer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import nn

from thaw.config.faults import Problem, UserError
from thaw.config.schema import OptimizerConfig
from thaw.network.kinds import get_batchnorm_layers, select_parameters
from thaw.network.network import HEAD, Network
from thaw.strategy.plan import PartPlan, PhasePlan, Plan
from thaw.training.optimizers import BUILD_ERROR_MESSAGE, build_constructor_arguments, load_optimizer_class


def parameter_groups(network: Network, decay_norms_and_biases: bool) -> list[dict[str, Any]]:
    """One group a part and kind, of all that ever trains (`requires_grad`), what is still frozen too: schedulers and
    checkpoints break on groups that come later. `part` is the stage's name, `decays` whether weight decay acts on it
    (norms and biases are vectors, weights are not)."""
    return list(_iter_groups(network, decay_norms_and_biases))


def _iter_groups(network: Network, decay_norms_and_biases: bool) -> Iterator[dict[str, Any]]:
    for part in (*network.stages, HEAD):
        weights, vectors = _split_weights_and_vectors(network.get_part(part))
        if decay_norms_and_biases:
            weights, vectors = weights + vectors, []
        for has_decay, parameters in ((True, weights), (False, vectors)):
            if parameters:
                yield {"params": parameters, "part": part, "decays": has_decay, "lr": 1.0, "weight_decay": 0.0}


def _split_weights_and_vectors(part: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    parameters = [parameter for parameter in part.parameters() if parameter.requires_grad]
    return [parameter for parameter in parameters if parameter.ndim > 1], [
        parameter for parameter in parameters if parameter.ndim <= 1
    ]


def build_optimizer(optimizer: OptimizerConfig, groups: list[dict[str, Any]], fused: bool) -> torch.optim.Optimizer:
    """Raises UserFault where there is no such class, or where it refuses its arguments or the groups."""
    optimizer_cls: Any = load_optimizer_class(optimizer.name)
    arguments = build_constructor_arguments(optimizer_cls, optimizer, fused)
    try:
        instance: torch.optim.Optimizer = optimizer_cls(groups, **arguments)
    except (TypeError, ValueError) as error:
        problem = Problem(f"optimizer.name={optimizer.name} with optimizer.arguments={optimizer.arguments}", str(error))
        raise UserError(BUILD_ERROR_MESSAGE, [problem]) from error
    return instance


def set_weight_decay(groups: list[dict[str, Any]], phase: PhasePlan) -> None:
    weight_decays = {part.name: part.weight_decay for part in phase.parts}
    for group in groups:
        group["weight_decay"] = weight_decays[group["part"]] if group["decays"] else 0.0


def apply_phase(network: Network, phase: PhasePlan) -> None:
    """Sets what trains, and the mode of every part. A frozen part runs in evaluation mode, but for the BatchNorm that
    its phase asks for: its dropout would change its output, though its weights do not."""
    for part in phase.parts:
        module = network.get_part(part.name)
        module.requires_grad_(False)
        for parameter in select_trainable_parameters(module, part):
            parameter.requires_grad_(True)
    set_modes(network, phase.parts)
    network.num_frozen_stages = phase.num_frozen_stages


def set_modes(network: Network, parts: Iterable[PartPlan]) -> None:
    for part in parts:
        module = network.get_part(part.name)
        module.train(part.trainable)
        for layer in get_batchnorm_layers(module):
            layer.train(part.batchnorm != "eval")


def select_trainable_parameters(module: nn.Module, part: PartPlan) -> list[nn.Parameter]:
    parameters = select_parameters(module, part.parameters) if part.trainable else []
    if part.batchnorm == "statistics":
        batchnorm_ids = {id(parameter) for layer in get_batchnorm_layers(module) for parameter in layer.parameters()}
        return [parameter for parameter in parameters if id(parameter) not in batchnorm_ids]
    return parameters


def collect_trainable_parameters(network: Network, plan: Plan, names: Iterable[str]) -> list[nn.Parameter]:
    """What of the parts `names` trains in some phase."""
    selected_names = set(names)
    parts = [part for phase in plan.phases for part in phase.parts if part.name in selected_names]
    return list(
        {
            id(parameter): parameter
            for part in parts
            for parameter in select_trainable_parameters(network.get_part(part.name), part)
        }.values()
    )
