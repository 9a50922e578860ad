"""What every layer of a network makes of one picture, as sheets of small maps; the filters of its first layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from thaw.network.maps import maps_of, run_seeing, side_of
from thaw.network.network import Network

MOST_CHANNELS = 32
TILE, GAP, COLUMNS = 80, 2, 8  # pixels, but for the columns
COLOURS = "viridis"


@dataclass(frozen=True)
class LayerMaps:
    """`maps` float32 [shown, side, side] of the channels that vary most over the picture, the first most of all; `kind`
    is the layer's, `path` the library's own, empty for what a stage puts out."""

    path: str
    kind: str
    channels: int
    maps: np.ndarray


@dataclass(frozen=True)
class StageMaps:
    """`layers` are its convolutions, in the order in which they act; of a stage without any its last maps. `output` are
    the last maps of every stage, None where there are none. `pointless` are convolutions whose output has a single
    position, as those of squeeze-and-excitation."""

    name: str
    layers: list[LayerMaps]
    output: LayerMaps | None
    pointless: list[str]

    @property
    def has_convolutions(self) -> bool:
        return any(one.path for one in self.layers)


@torch.no_grad()
def stage_maps(network: Network, image: Tensor, most: int = MOST_CHANNELS) -> list[StageMaps]:
    """Of a normalised image [1, 3, size, size], stage by stage; at most `most` channels a layer."""
    features, found = image, list[StageMaps]()
    for name, stage in network.stages.items():
        layers, pointless = list[LayerMaps](), list[str]()
        hooks = [
            module.register_forward_hook(_noting(path, layers, pointless, most))
            for path, module in stage.named_modules()
            if isinstance(module, nn.Conv2d)
        ]
        try:
            features, seen = run_seeing(stage, features)
        finally:
            for hook in hooks:
                hook.remove()
        output = _layer("", "", seen[-1], most) if seen and side_of(seen[-1]) > 1 else None
        found.append(StageMaps(name, layers or [one for one in [output] if one], output, pointless))
    return found


def _noting(path: str, layers: list[LayerMaps], pointless: list[str], most: int) -> Callable[..., None]:
    def note(module: nn.Module, inputs: object, output: Tensor) -> None:
        if output.shape[-1] > 1:
            layers.append(_layer(path, type(module).__name__, output, most))
        else:
            pointless.append(path)

    return note


def _layer(path: str, kind: str, output: Tensor, most: int) -> LayerMaps:
    maps = maps_of(output)
    assert maps is not None
    strength = maps[0].float().flatten(1).std(1, correction=0)
    strongest = strength.argsort(descending=True, stable=True)[:most]
    return LayerMaps(path, kind, maps.shape[1], maps[0, strongest].float().cpu().numpy())


def sheet(maps: np.ndarray, most: int = MOST_CHANNELS) -> np.ndarray:
    """uint8 [height, width, 3]: the first `most` of [n, side, side], COLUMNS in a row, each from its least value, dark,
    to its largest, bright."""
    low, high = (one(maps[:most], axis=(1, 2), keepdims=True) for one in (np.min, np.max))
    shares = (maps[:most] - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    return tiled((matplotlib.colormaps[COLOURS](shares)[..., :3] * 255).astype(np.uint8))


def tiled(pictures: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """uint8 [height, width, 3] of uint8 [n, side, side, 3], each TILE pixels wide, on white."""
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    canvas = Image.new("RGB", (columns * (TILE + GAP) - GAP, rows * (TILE + GAP) - GAP), "white")
    for number, picture in enumerate(pictures):
        small = Image.fromarray(picture)
        method = Image.Resampling.NEAREST if small.width <= TILE else Image.Resampling.BOX
        place = (number % columns * (TILE + GAP), number // columns * (TILE + GAP))
        canvas.paste(small.resize((TILE, TILE), method), place)
    return np.asarray(canvas)


def first_filters(network: Network) -> tuple[str, np.ndarray] | None:
    """Path of the first layer, and float32 [filters, side, side, 3] of its filters from 0 to 1, each scaled by its own
    largest weight around the grey of 0; None where it is no convolution of red, green and blue."""
    paths = [(path, one) for stage in network.stages.values() for path, one in stage.named_modules()]
    for path, layer in paths:
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.detach().float().permute(0, 2, 3, 1)
            if weight.shape[3] != 3 or weight.shape[1] != weight.shape[2] or weight.shape[1] == 1:
                return None
            return path, (0.5 + 0.5 * weight / weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)).numpy()
    return None
