"""Identify features: training, evaluation and probes that need the same features compute the same key for them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from PIL import __version__ as pillow_version
from torch import nn

from thaw.config.schema import BackboneConfig
from thaw.data.preprocessing import Preprocessing
from thaw.features.views import Views
from thaw.models.network import Network
from thaw.system.cache_folder import compute_cache_key

FORMAT_VERSION = 3  # of the cached files; features in another format are computed again


@dataclass(frozen=True)
class FeatureSpec:
    """Everything that features depend on except the network's weights and precision.

    Attributes:
        architecture: the library, its version and the backbone: networks of other structure may have equal weights.
        preprocessing: how images are cropped, resized and normalized.
        views: the images, and the views of each.
    """

    architecture: str
    preprocessing: Preprocessing
    views: Views

    def compute_keys(self, network: Network, depths: Sequence[int]) -> dict[int, str]:
        """Return the cache key of the output of the leading `depth` stages of `network`, by depth, in the given order.

        Weights count by their bits, wherever they come from. Each is hashed once. The precision counts too.
        """
        hashes = [
            (name, hash_weights(network.get_part(name))) for name in list(network.stages)[: max(depths, default=0)]
        ]
        return {depth: self._compute_key(network, hashes[:depth]) for depth in depths}

    def _compute_key(self, network: Network, stage_hashes: Sequence[tuple[str, str]]) -> str:
        depth = len(stage_hashes)
        parts: dict[str, Any] = {
            "layout": FORMAT_VERSION,
            "stages": stage_hashes,
            "pooled": depth == len(network.stages),
            "architecture": self.architecture,
            "preprocessing": self.preprocessing.to_dict(),
            "precision": network.precision.describe_stages(depth),
            "pillow": pillow_version,  # another version may decode and resize differently
            "images": self.views.identity,
        }
        return compute_cache_key(**parts)


def build_feature_spec(backbone: BackboneConfig, preprocessing: Preprocessing, views: Views) -> FeatureSpec:
    """Build the spec of features of `backbone`."""
    return FeatureSpec(describe_architecture(backbone), preprocessing, views)


def describe_architecture(backbone: BackboneConfig) -> str:
    """Return library, version and name of `backbone`, which decide the structure of its network."""
    return f"{backbone.library} {version(backbone.library)} {backbone.name}"


def hash_weights(stage: nn.Module) -> str:
    """Return the SHA-256 of the parameters and buffers of `stage`, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, value in stage.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
