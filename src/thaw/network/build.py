"""The recipe's backbone and head -> a network for a data set's classes."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from thaw.config.schema import Backbone, LinearHead
from thaw.data.preprocessing import Preprocessing
from thaw.network.network import Network, vectors
from thaw.network.source import Source, source_of
from thaw.network.stages import split


def build_network(source: Source, head: LinearHead, classes: int, preprocessing: Preprocessing) -> Network:
    """`source` in stages, its classifier layer replaced by a fresh head for `classes` logits."""
    stages = split(source.model, preprocessing.size).stages
    width = _width(nn.Sequential(*stages.values()), preprocessing.size)
    return Network(dict(stages), linear_head(width, classes, head.dropout))


def linear_head(width: int, classes: int, dropout: float) -> nn.Module:
    """[n, width] -> [n, classes], in torch's own initialisation."""
    layers: list[nn.Module] = [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers, nn.Linear(width, classes))


def _width(backbone: nn.Module, size: int) -> int:
    with torch.no_grad():
        return int(vectors(backbone.eval()(torch.zeros(1, 3, size, size))).shape[1])


def source_for(
    backbone: Backbone, random_start: bool, seed: int, cache: Path, mirror: str | None, size: int | None = None
) -> Source:
    """The source, its random parts decided by `seed`."""
    torch.manual_seed(seed)
    return source_of(backbone, random_start, cache, mirror, size)
