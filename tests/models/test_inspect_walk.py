"""`thaw inspect` of a network of each family of timm: a table, or a message."""

from __future__ import annotations

import pytest
import timm

from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.training.freezing import summarize_network

FAMILIES = {family: timm.list_models(module=family) for family in timm.list_modules()}


@pytest.mark.long
@pytest.mark.parametrize("family", [family for family, names in FAMILIES.items() if names])
def test_each_family_gives_a_table_or_a_message(family: str) -> None:
    name = FAMILIES[family][0]
    recipe = compose_recipe(["backbone=timm", f"backbone.name={name}", "strategy=scratch"])
    try:
        summary = summarize_network(recipe, None, 1000, with_layers=True, with_plan=True)
    except UserError as error:
        assert error.problems  # noqa: PT017
        return
    num_parameters = sum(stage.facts.num_parameters for stage in summary.stages)
    assert sum(layer.num_parameters for layer in summary.layers) == num_parameters
    assert sum(stage.multiply_adds for stage in summary.stages) > 0
