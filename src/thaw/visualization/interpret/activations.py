"""Activations of layers as maps over the image."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, fx, nn

from thaw.models.network import get_spatial_dims


def extract_feature_maps(features: object) -> Tensor | None:
    """Convert a layer's output for n square images to maps, float [n, channels, side, side].

    Tokens [n, tokens, width] become the largest square grid that they fill, without the tokens before it: class token
    and registers. (2 `side` + 1 of them would be mistaken for a row and a column of the grid.) Return None where the
    output has no positions in the image.
    """
    if not isinstance(features, Tensor) or not features.is_floating_point():
        return None
    if features.ndim == 4:
        is_channels_first = get_spatial_dims(features) == (2, 3)
        maps = features if is_channels_first else features.permute(0, 3, 1, 2)
        return maps if maps.shape[2] == maps.shape[3] else None
    if features.ndim == 3:
        side = math.isqrt(features.shape[1])
        tokens = features[:, features.shape[1] - side**2 :]
        return tokens.transpose(1, 2).reshape(len(tokens), -1, side, side)
    return None


def get_map_side(features: object) -> int:
    """Return the side of a layer's maps in positions; 0 where it has none."""
    maps = extract_feature_maps(features)
    return 0 if maps is None else maps.shape[-1]


def run_with_activations(stage: nn.Module, features: Tensor) -> tuple[Tensor, list[Tensor]]:
    """Run a stage of a network; return its output, and those outputs of its steps that have maps, in order.

    The output of a stage that pools has no maps.
    """
    interpreter = _RecordingInterpreter(stage)
    return interpreter.run(features), interpreter.activations


class _RecordingInterpreter(fx.Interpreter):
    """Runs a stage node by node and records `activations`."""

    def __init__(self, stage: nn.Module) -> None:
        assert isinstance(stage, fx.GraphModule)
        super().__init__(stage)
        self.activations: list[Tensor] = []

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op.startswith("call_") and get_map_side(value):
            self.activations.append(value)
        return value
