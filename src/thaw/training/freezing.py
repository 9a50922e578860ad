"""The plan of a recipe for a network."""

from __future__ import annotations

from thaw.config.schema import Recipe
from thaw.models.network import HEAD, Network
from thaw.models.parameters import count_parameters, select_parameters
from thaw.strategy.plan import Plan, build_plan
from thaw.strategy.selection import Part


def plan_for_recipe(recipe: Recipe, network: Network) -> Plan:
    """Raises UserFault where the strategy does not fit the network's stages or the recipe's epochs."""
    optimizer, scheduler = recipe.optimizer, recipe.scheduler
    schedule_epochs = max([getattr(scheduler, "warmup_epochs", 0), *getattr(scheduler, "milestones", [])])
    parts = [_build_part(network, name) for name in (*network.stages, HEAD)]
    return build_plan(
        recipe.strategy, parts, recipe.trainer.epochs, optimizer.learning_rate, optimizer.weight_decay, schedule_epochs
    )


def _build_part(network: Network, name: str) -> Part:
    num_norm_parameters, num_bias_parameters = (
        count_parameters(select_parameters(network.get_part(name), kind)) for kind in ("norms", "biases")
    )
    return Part(name, num_norm_parameters, num_bias_parameters)
