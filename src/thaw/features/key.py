"""The name of a feature cache: it changes with everything that the features depend on."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from PIL import __version__ as pillow_version

from thaw.data.cache import key_of
from thaw.data.preprocessing import Preprocessing
from thaw.network.network import Network

LAYOUT = 1  # of the files; a cache of another layout is built anew


def feature_key(
    network: Network,
    depth: int,
    architecture: str,
    preprocessing: Preprocessing,
    precision: str,
    images: dict[str, Any],
) -> str:
    """Of the output of the leading `depth` stages of `network`: for `images` (`Views.identity`), as `preprocessing`
    cuts and scales them, at Lightning's `precision`. `architecture` names library, version and backbone, as other
    wiring may hold the same weights. The weights count by their bits, wherever they come from."""
    stages = list(network.stages)[:depth]
    return key_of(
        layout=LAYOUT,
        architecture=architecture,
        stages=stages,
        pooled=depth == len(network.stages),
        weights=weights_hash(network, stages),
        preprocessing=preprocessing.plain(),
        precision=precision,
        pillow=pillow_version,  # another one may decode and resize otherwise
        images=images,
    )


def weights_hash(network: Network, stages: list[str]) -> str:
    """SHA-256 of the parameters and buffers of `stages`, with their names, types and shapes."""
    digest = hashlib.sha256()
    for stage in stages:
        for name, value in network.part(stage).state_dict().items():
            digest.update(f"{stage}.{name} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
