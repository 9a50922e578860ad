"""Norms of gradients and weights, and the hyperparameters that TensorBoard shows."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from thaw.config.compose import compose_recipe
from thaw.training.callbacks.gradient_norms import compute_part_norms
from thaw.training.tensorboard import collect_hyperparameters, find_rarest_classes


def test_the_norm_of_a_part_is_that_of_all_its_parameters_as_a_vector() -> None:
    layers = {name: nn.Linear(3, 2) for name in ("stem", "block", "head")}
    layers["stem"].requires_grad_(False)
    loss = sum(layer(torch.ones(1, 3)).pow(2).sum() for name, layer in layers.items() if name != "block")
    loss.backward()  # type: ignore[union-attr]
    groups = [
        {"part": name, "params": [parameter]} for name, layer in layers.items() for parameter in layer.parameters()
    ]
    parts, norms = compute_part_norms(groups)
    assert parts == ["head"]  # the stem is frozen, the block has no gradient
    assert norms is not None
    head = list(layers["head"].parameters())
    gradient = torch.cat([parameter.grad.flatten() for parameter in head if parameter.grad is not None]).norm()
    weights = torch.cat([parameter.detach().flatten() for parameter in head]).norm()
    torch.testing.assert_close(norms[:, 0], torch.stack([gradient, weights]))


def test_without_gradients_there_are_no_norms() -> None:
    assert compute_part_norms([{"part": "head", "params": [nn.Parameter(torch.ones(2))]}]) == ([], None)


def test_the_rarest_of_many_classes_have_curves() -> None:
    labels = np.array([0, 0, 0, 1, 2, 2, 5])
    assert find_rarest_classes(labels, 20) == [0, 1, 2, 5]
    assert find_rarest_classes(labels, 2) == [1, 5]


def test_hyperparameters_differ_by_name_and_are_never_none() -> None:
    default_values, mix_values = (
        collect_hyperparameters(compose_recipe(parameter))
        for parameter in ([], ["augment=mix", "trainer.averaging={kind: ema}"])
    )
    assert default_values.keys() < mix_values.keys()
    assert "kind: ema" in mix_values["trainer.averaging"]
    differing = {key for key in default_values if default_values[key] != mix_values[key]}
    assert differing == {"augment.optional", "trainer.optional"}
    assert "mixup" in mix_values["augment.optional"]
    assert not {"None", "null"} & {str(value) for value in (*default_values.values(), *mix_values.values())}
    assert all(isinstance(value, bool | int | float | str) for value in default_values.values())
