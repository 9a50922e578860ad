"""The name of a feature cache: it changes with everything that the features depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from PIL import __version__ as pillow_version
from torch import nn

from thaw.data.cache import compute_cache_key
from thaw.data.preprocessing import Preprocessing
from thaw.network.network import Network

FORMAT_VERSION = 2  # of the files; a cache of another layout is built anew


def compute_feature_keys(
    network: Network,
    depths: Iterable[int],
    architecture: str,
    preprocessing: Preprocessing,
    precision: str,
    image_identity: dict[str, Any],
) -> dict[int, str]:
    """By depth, of the output of the leading so many stages of `network`: for `images` (`Views.identity`), as
    `preprocessing` cuts and scales them, at Lightning's `precision`. `architecture` names library, version and
    backbone, as other wiring may hold the same weights. The weights count by their bits, wherever they come from."""
    requested_depths = list(depths)
    hashes = {
        name: hash_weights(network.get_part(name)) for name in list(network.stages)[: max(requested_depths, default=0)]
    }
    common_fields = {"architecture": architecture, "preprocessing": preprocessing.to_dict(), "precision": precision}
    common_fields |= {
        "pillow": pillow_version,
        "images": image_identity,
    }  # another Pillow may decode and resize otherwise
    return {
        depth: _compute_key(hashes, depth, depth == len(network.stages), common_fields) for depth in requested_depths
    }


def _compute_key(hashes: dict[str, str], depth: int, is_pooled: bool, common_fields: dict[str, Any]) -> str:
    return compute_cache_key(
        layout=FORMAT_VERSION, stages=list(hashes.items())[:depth], pooled=is_pooled, **common_fields
    )


def hash_weights(stage: nn.Module) -> str:
    """SHA-256 of parameters and buffers, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, value in stage.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
