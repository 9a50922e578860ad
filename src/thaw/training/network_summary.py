"""What a recipe's network consists of and costs. Needs no weights and no data: it is on torch's meta device."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

from thaw.config.schema import Recipe
from thaw.models.cost import LayerInfo, StageCost, compute_stage_costs, list_layers, on_meta_device
from thaw.models.factory import load_seeded_pretrained, uninitialized_network
from thaw.models.network import HEAD, Network
from thaw.models.parameters import count_parameters
from thaw.strategy.plan import Plan
from thaw.system.cache_folder import resolve_cache_dir
from thaw.training.freezing import collect_trainable_parameters, plan_for_recipe


@dataclass(frozen=True)
class NetworkSummary:
    """Figures of a network for square images of `image_size` pixels. `layers` is empty and `plan` None if they were not
    asked for; `num_trainable` counts the parameters that `plan` trains in any phase."""

    image_size: int
    stages: list[StageCost]
    layers: list[LayerInfo]
    plan: Plan | None
    num_trainable: int


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
        return NetworkSummary(size, compute_stage_costs(network, size), layers, plan, num_trainable)

    with warnings.catch_warnings(action="ignore"):  # of constructors, on how they would initialize
        return on_meta_device(summarize)


def _build_network(recipe: Recipe, image_size: int | None, num_classes: int) -> tuple[Network, int]:
    cache_dir = resolve_cache_dir(recipe.data.cache_dir)
    pretrained_model = load_seeded_pretrained(recipe.backbone, True, recipe.seed, cache_dir, None, image_size)
    preprocessing = pretrained_model.preprocessing.with_size(image_size, recipe.dataset.crop)
    return uninitialized_network(pretrained_model, recipe.head, num_classes, preprocessing), preprocessing.size


def _build_plan(recipe: Recipe, network: Network) -> tuple[Plan, int]:
    plan = plan_for_recipe(recipe, network)
    return plan, count_parameters(collect_trainable_parameters(network, plan, [*network.stages, HEAD]))
