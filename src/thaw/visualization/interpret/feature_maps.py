"""Compute and render the feature maps of every layer for one image, and the filters of the first layer."""

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
TILE_SIZE, GAP = 80, 2  # pixels
COLUMNS = 8
COLORMAP = "viridis"


@dataclass(frozen=True)
class LayerMaps:
    """The `maps`, float32 [shown, side, side], of a layer's channels that vary most over the image, in that order.

    `path` is the library's, empty for the output of a stage. `kind` is the name of the layer's class.
    """

    path: str
    kind: str
    channels: int
    maps: np.ndarray


@dataclass(frozen=True)
class StageMaps:
    """The feature maps of a stage.

    `layers` are its convolutions in the order in which they run, or its last maps if it has none. `output` are its last
    maps, None where it has none. `layers_without_maps` are paths of convolutions whose output has a single position,
    such as those of squeeze-and-excitation.
    """

    name: str
    layers: list[LayerMaps]
    output: LayerMaps | None
    layers_without_maps: list[str]

    @property
    def has_convolutions(self) -> bool:
        """Whether `layers` are convolutions."""
        return any(layer.path for layer in self.layers)


@torch.no_grad()
def compute_stage_maps(network: Network, image: Tensor, max_channels: int = MAX_CHANNELS) -> list[StageMaps]:
    """Compute the maps of a normalized image [1, 3, size, size] in each stage; at most `max_channels` per layer."""
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
        has_maps = bool(activations) and get_map_side(activations[-1]) > 1
        output = _build_layer_maps("", "", activations[-1], max_channels) if has_maps else None
        shown_layers = layers or ([output] if output else [])
        all_stage_maps.append(StageMaps(name, shown_layers, output, layers_without_maps))
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
    """Render the first `max_maps` of maps [n, side, side] as an image, uint8 [height, width, 3].

    Each map goes from its minimum, dark, to its maximum, bright.
    """
    low, high = (reduce_maps(maps[:max_maps], axis=(1, 2), keepdims=True) for reduce_maps in (np.min, np.max))
    scaled_maps = (maps[:max_maps] - low) / np.maximum(high - low, np.finfo(np.float32).tiny)
    return tile_images((matplotlib.colormaps[COLORMAP](scaled_maps)[..., :3] * 255).astype(np.uint8))


def tile_images(images: np.ndarray, columns: int = COLUMNS) -> np.ndarray:
    """Put images, uint8 [n, side, side, 3], side by side on white; return uint8 [height, width, 3]."""
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
    """Return the path of the first layer and its filters as colors, float32 [filters, side, side, 3] from 0 to 1.

    Each filter is scaled by its own largest weight; gray is 0. Return None where the layer is not a convolution of red,
    green and blue with square filters of more than one pixel.
    """
    named_layers = [(path, module) for stage in network.stages.values() for path, module in stage.named_modules()]
    for path, layer in named_layers:
        if isinstance(layer, nn.Conv2d):
            weight = layer.weight.detach().float().permute(0, 2, 3, 1)
            if weight.shape[3] != 3 or weight.shape[1] != weight.shape[2] or weight.shape[1] == 1:
                return None
            return path, (0.5 + 0.5 * weight / weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12)).numpy()
    return None
