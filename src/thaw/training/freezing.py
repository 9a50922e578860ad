"""What trains in each phase: the plan of a recipe, applied to a network; the summary of a network and its plan."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import nn

from thaw.config.schema import Recipe
from thaw.models.cost import LayerInfo, StageCost, compute_stage_costs, list_layers, on_meta_device
from thaw.models.factory import load_seeded_pretrained, uninitialized_network
from thaw.models.image_sizes import check_backbone
from thaw.models.network import (
    HEAD,
    Network,
    count_layers,
    count_parameters,
    get_batchnorm_layers,
    select_parameters,
)
from thaw.strategy.plan import PartPlan, PhasePlan, Plan, build_plan
from thaw.strategy.selection import Part, describe_uneven_stages
from thaw.system.cache_folder import resolve_cache_dir


def plan_for_recipe(recipe: Recipe, network: Network) -> Plan:
    """Build the plan of a recipe for the stages of a network.

    Raises:
        UserError: if the strategy does not fit the network's stages or the recipe's epochs.
    """
    optimizer, scheduler = recipe.optimizer, recipe.scheduler
    schedule_epochs = max([getattr(scheduler, "warmup_epochs", 0), *getattr(scheduler, "milestones", [])])
    return build_plan(
        recipe.strategy,
        build_parts(network),
        recipe.trainer.epochs,
        optimizer.learning_rate,
        optimizer.weight_decay,
        schedule_epochs,
    )


def build_parts(network: Network) -> list[Part]:
    """Return the stages of a network and its head as a strategy sees them."""
    return [_build_part(network, name) for name in (*network.stages, HEAD)]


def _build_part(network: Network, name: str) -> Part:
    module = network.get_part(name)
    num_norms, num_biases = (count_parameters(select_parameters(module, kind)) for kind in ("norms", "biases"))
    return Part(name, num_norms, num_biases, count_layers(module))


def collect_trainable_parameters(network: Network, plan: Plan, names: Iterable[str]) -> list[nn.Parameter]:
    """Return the parameters of the parts `names` that train in some phase of the plan."""
    selected_names = set(names)
    parts = [part for phase in plan.phases for part in phase.parts if part.name in selected_names]
    parameters = (
        parameter for part in parts for parameter in select_trainable_parameters(network.get_part(part.name), part)
    )
    return list({id(parameter): parameter for parameter in parameters}.values())


def collect_trainable_tensors(network: Network, plan: Plan) -> dict[str, Any]:
    """Return parameters that train, and BatchNorm statistics that are updated, in some phase of the plan, by name."""
    part_names = {part.name for phase in plan.phases for part in phase.parts if part.batchnorm != "eval"}
    layers = [layer for name in part_names for layer in get_batchnorm_layers(network.get_part(name))]
    statistics = [tensor for layer in layers for tensor in layer.buffers() if tensor.is_floating_point()]
    parameters = collect_trainable_parameters(network, plan, [*network.stages, HEAD])
    tensor_ids = {id(tensor) for tensor in (*parameters, *statistics)}
    named_tensors = (*network.named_parameters(), *network.named_buffers())
    return {name: tensor for name, tensor in named_tensors if id(tensor) in tensor_ids}


def select_trainable_parameters(module: nn.Module, part: PartPlan) -> list[nn.Parameter]:
    """Return the parameters of a stage or head that train as `part` says."""
    parameters = select_parameters(module, part.parameters) if part.trainable else []
    if part.batchnorm == "statistics":
        batchnorm_ids = {id(parameter) for layer in get_batchnorm_layers(module) for parameter in layer.parameters()}
        return [parameter for parameter in parameters if id(parameter) not in batchnorm_ids]
    return parameters


def freeze_untrained(network: Network, plan: Plan) -> None:
    """Freeze the parameters that no phase trains: they take no part in the exchange of gradients."""
    trained_ids = {id(parameter) for parameter in collect_trainable_parameters(network, plan, [*network.stages, HEAD])}
    for parameter in network.parameters():
        parameter.requires_grad_(id(parameter) in trained_ids)


def apply_phase(network: Network, phase: PhasePlan) -> None:
    """Freeze and unfreeze parameters and set the mode of every part for a phase."""
    for part in phase.parts:
        module = network.get_part(part.name)
        module.requires_grad_(False)
        for parameter in select_trainable_parameters(module, part):
            parameter.requires_grad_(True)
    set_modes(network, phase.parts)
    network.num_frozen_stages = phase.num_frozen_stages


def set_modes(network: Network, parts: Iterable[PartPlan]) -> None:
    """Set training or evaluation mode.

    Frozen parts run in evaluation mode, otherwise dropout would change their output, except for BatchNorm layers
    whose statistics the phase updates.
    """
    for part in parts:
        module = network.get_part(part.name)
        module.train(part.trainable)
        for layer in get_batchnorm_layers(module):
            layer.train(part.batchnorm != "eval")


@dataclass(frozen=True)
class NetworkSummary:
    """Figures of a network for square images of `image_size` pixels. `layers` is empty and `plan` None if they were not
    asked for; `num_trainable` counts the parameters that `plan` trains in any phase. `unevenness` says why the stages
    are no measure of depth; empty if they are."""

    image_size: int
    stages: list[StageCost]
    layers: list[LayerInfo]
    plan: Plan | None
    num_trainable: int
    unevenness: str


def summarize_network(
    recipe: Recipe, image_size: int | None, num_classes: int, *, with_layers: bool = False, with_plan: bool = False
) -> NetworkSummary:
    """Return the stages of the recipe's network with a head for `num_classes`; its layers and plan too if wanted.
    `image_size` None: the size of the default weights.

    Raises:
        UserError: if the network cannot be split into stages, or the strategy does not fit it.
    """

    def summarize() -> NetworkSummary:
        network, size = _build_network(recipe, image_size, num_classes)
        layers = list_layers(network, size) if with_layers else []
        plan, num_trainable = _build_plan(recipe, network) if with_plan else (None, 0)
        unevenness = describe_uneven_stages(build_parts(network))
        return NetworkSummary(size, compute_stage_costs(network, size), layers, plan, num_trainable, unevenness)

    with warnings.catch_warnings(action="ignore"):  # of constructors, on how they would initialize
        return on_meta_device(summarize)


def _build_network(recipe: Recipe, image_size: int | None, num_classes: int) -> tuple[Network, int]:
    check_backbone(recipe.backbone, True, image_size)
    cache_dir = resolve_cache_dir(recipe.data.cache_dir)
    pretrained_model = load_seeded_pretrained(recipe.backbone, True, recipe.seed, cache_dir, None, image_size)
    preprocessing = pretrained_model.preprocessing.with_size(image_size, recipe.dataset.crop)
    return uninitialized_network(pretrained_model, recipe.head, num_classes, preprocessing), preprocessing.size


def _build_plan(recipe: Recipe, network: Network) -> tuple[Plan, int]:
    plan = plan_for_recipe(recipe, network)
    return plan, count_parameters(collect_trainable_parameters(network, plan, [*network.stages, HEAD]))
