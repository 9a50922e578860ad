"""The plan of a recipe for a network."""

from __future__ import annotations

from thaw.config.schema import Recipe
from thaw.network.kinds import parameters_of, size_of
from thaw.network.network import HEAD, Network
from thaw.strategy.parts import Part
from thaw.strategy.plan import Plan, planned


def plan_of(recipe: Recipe, network: Network) -> Plan:
    """Raises UserFault where the strategy does not fit the network's stages or the recipe's epochs."""
    optimizer, scheduler = recipe.optimizer, recipe.scheduler
    last_change = max([getattr(scheduler, "warmup_epochs", 0), *getattr(scheduler, "milestones", [])])
    parts = [_part(network, name) for name in (*network.stages, HEAD)]
    return planned(
        recipe.strategy, parts, recipe.trainer.epochs, optimizer.learning_rate, optimizer.weight_decay, last_change
    )


def _part(network: Network, name: str) -> Part:
    norms, biases = (size_of(parameters_of(network.part(name), kind)) for kind in ("norms", "biases"))
    return Part(name, norms, biases)
