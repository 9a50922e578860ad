"""Norms of gradients and weights, beside torch's own."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from thaw.config.compose import compose_recipe
from thaw.training.callbacks.gradient_norms import compute_part_norms
from thaw.training.tensorboard import collect_hyperparameters, find_rarest_classes


def test_the_norm_of_a_part_is_that_of_all_its_parameters_as_one_vector() -> None:
    layers = {name: nn.Linear(3, 2) for name in ("stem", "block", "head")}
    layers["stem"].requires_grad_(False)
    loss = sum(layer(torch.ones(1, 3)).pow(2).sum() for name, layer in layers.items() if name != "block")
    loss.backward()  # type: ignore[union-attr]
    groups = [{"part": name, "params": [one]} for name, layer in layers.items() for one in layer.parameters()]
    parts, norms = compute_part_norms(groups)
    assert parts == ["head"]  # the stem is frozen, the block has no gradient
    assert norms is not None
    head = list(layers["head"].parameters())
    gradient = torch.cat([one.grad.flatten() for one in head if one.grad is not None]).norm()
    weights = torch.cat([one.detach().flatten() for one in head]).norm()
    torch.testing.assert_close(norms[:, 0], torch.stack([gradient, weights]))


def test_where_nothing_has_a_gradient_there_is_no_norm() -> None:
    assert compute_part_norms([{"part": "head", "params": [nn.Parameter(torch.ones(2))]}]) == ([], None)


def test_of_many_classes_the_rarest_have_curves() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2, 5])
    assert find_rarest_classes(labels, 20) == [0, 1, 2, 5]
    assert find_rarest_classes(labels, 2) == [1, 5]


def test_a_key_that_is_set_in_one_recipe_alone_is_a_key_of_both() -> None:
    plain, mixed = (
        collect_hyperparameters(compose_recipe(one)) for one in ([], ["augment=mix", "trainer.averaging={kind: ema}"])
    )
    assert plain.keys() == mixed.keys()
    differing = {key for key in plain if plain[key] != mixed[key]}
    assert "trainer.averaging" in differing
    assert {key.split(".")[0] for key in differing} == {"augment", "trainer"}
    assert all(isinstance(value, bool | int | float | str) for value in plain.values())
