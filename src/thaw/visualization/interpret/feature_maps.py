"""What every layer of a network makes of one picture, as sheets of small maps; the filters of its first layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from thaw.models.network import Network
from thaw.visualization.interpret.activations import extract_feature_maps, get_map_side, run_with_activations

MAX_CHANNELS = 32
TILE_SIZE, GAP, COLUMNS = 80, 2, 8  # pixels, but for the columns
COLORMAP = "viridis"


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
    layers_without_maps: list[str]

    @property
    def has_convolutions(self) -> bool:
        return any(layer.path for layer in self.layers)


@torch.no_grad()
def compute_stage_maps(network: Network, image: Tensor, max_channels: int = MAX_CHANNELS) -> list[StageMaps]:
    """Of a normalised image [1, 3, size, size], stage by stage; at most `most` channels a layer."""
    features, all_stage_maps = image, list[StageMaps]()
    for name, stage in network.stages.items():
        layers, layers_without_maps = list[LayerMaps](), list[str]()
        hooks = [
            module.register_forward_hook(_build_recording_hook(path, layers, layers_without_maps, max_channels))
            for path, module in stage.named_modules()
            if isinstance(module, nn.Conv2d)
        ]
        try:
            features, activations = run_with_activations(stage, features)
        finally:
            for hook in hooks:
                hook.remove()
        output = (
            _build_layer_maps("", "", activations[-1], max_channels)
            if activations and get_map_side(activations[-1]) > 1
            else None
        )
        all_stage_maps.append(
            StageMaps(name, layers or [layer for layer in [output] if layer], output, layers_without_maps)
        )
    return all_stage_maps


def _build_recording_hook(
    path: str, layers: list[LayerMaps], layers_without_maps: list[str], max_channels: int
) -> Callable[..., None]:
    def record_maps(module: nn.Module, inputs: object, output: Tensor) -> None:
        if output.shape[-1] > 1:
            layers.append(_build_layer_maps(path, type(module).__name__, output, max_channels))
        else:
            layers_without_maps.append(path)

    return record_maps


def _build_layer_maps(path: str, kind: str, output: Tensor, max_channels: int) -> LayerMaps:
    maps = extract_feature_maps(output)
    assert maps is not None
    channel_std = maps[0].float().flatten(1).std(1, correction=0)
    channel_indices = channel_std.argsort(descending=True, stable=True)[:max_channels]
    return LayerMaps(path, kind, maps.shape[1], maps[0, channel_indices].float().cpu().numpy())


def render_maps(maps: np.ndarray, max_maps: int = MAX_CHANNELS) -> np.ndarray:
    """uint8 [height, width, 3]: the first `most` of [n, side, side], COLUMNS in a row, each from its least value, dark,
    to its largest, bright."""
    low, high = (reduce_maps(maps[:max_maps], axis=(1, 2), keepdims=True) for reduce_maps in (np.min, np.max))
    scaled_maps = (maps[:max_maps] - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    return tile_images((matplotlib.colormaps[COLORMAP](scaled_maps)[..., :3] * 255).astype(np.uint8))


def tile_images(images: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """uint8 [height, width, 3] of uint8 [n, side, side, 3], each TILE pixels wide, on white."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    canvas = Image.new("RGB", (columns * (TILE_SIZE + GAP) - GAP, rows * (TILE_SIZE + GAP) - GAP), "white")
    for index, image in enumerate(images):
        tile = Image.fromarray(image)
        resampling = Image.Resampling.NEAREST if tile.width <= TILE_SIZE else Image.Resampling.BOX
        corner = (index % columns * (TILE_SIZE + GAP), index // columns * (TILE_SIZE + GAP))
        canvas.paste(tile.resize((TILE_SIZE, TILE_SIZE), resampling), corner)
    return np.asarray(canvas)


def extract_first_filters(network: Network) -> tuple[str, np.ndarray] | None:
    """Path of the first layer, and float32 [filters, side, side, 3] of its filters from 0 to 1, each scaled by its own
    largest weight around the grey of 0; None where it is no convolution of red, green and blue."""
    named_layers = [(path, module) for stage in network.stages.values() for path, module in stage.named_modules()]
    for path, layer in named_layers:
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.detach().float().permute(0, 2, 3, 1)
            if weight.shape[3] != 3 or weight.shape[1] != weight.shape[2] or weight.shape[1] == 1:
                return None
            return path, (0.5 + 0.5 * weight / weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)).numpy()
    return None
