"""The name of a feature cache: it changes with everything that the features depend on."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import torch
from PIL import __version__ as pillow_version
from torch import nn

from thaw.data.cache import key_of
from thaw.data.preprocessing import Preprocessing
from thaw.network.network import Network

LAYOUT = 2  # of the files; a cache of another layout is built anew


def feature_keys(
    network: Network,
    depths: Iterable[int],
    architecture: str,
    preprocessing: Preprocessing,
    precision: str,
    images: dict[str, Any],
) -> dict[int, str]:
    """By depth, of the output of the leading so many stages of `network`: for `images` (`Views.identity`), as
    `preprocessing` cuts and scales them, at Lightning's `precision`. `architecture` names library, version and
    backbone, as other wiring may hold the same weights. The weights count by their bits, wherever they come from."""
    wanted = list(depths)
    hashes = {name: weights_hash(network.part(name)) for name in list(network.stages)[: max(wanted, default=0)]}
    rest = {"architecture": architecture, "preprocessing": preprocessing.plain(), "precision": precision}
    rest |= {"pillow": pillow_version, "images": images}  # another Pillow may decode and resize otherwise
    return {depth: _key(hashes, depth, depth == len(network.stages), rest) for depth in wanted}


def _key(hashes: dict[str, str], depth: int, pooled: bool, rest: dict[str, Any]) -> str:
    return key_of(layout=LAYOUT, stages=list(hashes.items())[:depth], pooled=pooled, **rest)


def weights_hash(stage: nn.Module) -> str:
    """SHA-256 of parameters and buffers, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name, value in stage.state_dict().items():
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return digest.hexdigest()
