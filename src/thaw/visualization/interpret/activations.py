"""What layers put out, as maps over the image."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, fx, nn

from thaw.models.network import get_spatial_dims


def extract_feature_maps(features: object) -> Tensor | None:
    """float [n, channels, side, side] of a layer's output for n square images; None of what has no place in the image.

    Tokens [n, tokens, width] become the largest square grid that they fill; what there is before it, as the class token
    and registers, is left out. (They would have to be 2 `side` + 1 or more to be taken for a part of the grid.)
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
    """Of its maps, in positions; 0 where it has none."""
    maps = extract_feature_maps(features)
    return 0 if maps is None else maps.shape[-1]


def run_with_activations(stage: nn.Module, features: Tensor) -> tuple[Tensor, list[Tensor]]:
    """The output of `stage`, one of a network's, and what its steps put out on the way, in order, as far as that has
    maps. Behind a pooling in the stage its output has none."""
    interpreter = _RecordingInterpreter(stage)
    return interpreter.run(features), interpreter.activations


class _RecordingInterpreter(fx.Interpreter):
    def __init__(self, stage: nn.Module) -> None:
        assert isinstance(stage, fx.GraphModule)
        super().__init__(stage)
        self.activations: list[Tensor] = []

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.op.startswith("call_") and get_map_side(value):
            self.activations.append(value)
        return value
