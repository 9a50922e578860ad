"""The recipe's backbone and head -> a network for a data set's classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from thaw.config.schema import Backbone, Head, SourceRowsHead
from thaw.data.preprocessing import Preprocessing
from thaw.network.head import built_head, initialise, linear_layers
from thaw.network.network import Network, vectors
from thaw.network.source import Source, source_of
from thaw.network.source_rows import check_names, rows_by_class, start_from_rows
from thaw.network.stages import Split, split


def build_network(source: Source, head: Head, classes: Sequence[str], preprocessing: Preprocessing) -> Network:
    """`source` in stages, its classifier replaced by a head for the logits of `classes`, started as `head` says.

    Raises:
        UserFault: where the source takes no images of this size, or has no classes of the names that `head` asks for.
    """
    cut = split(source.model, preprocessing.size, replaces=head.replaces)
    network = _with_head(cut, head, len(classes), preprocessing.size)
    if isinstance(head, SourceRowsHead):
        _start_from_source(network.head, source, cut.classifier, head, classes)
    else:
        initialise(network.head, head.initialisation)
    return network


def unstarted_network(source: Source, head: Head, classes: int, preprocessing: Preprocessing) -> Network:
    """The shapes of `build_network`'s, with any values: what a checkpoint's weights are loaded into."""
    cut = split(source.model, preprocessing.size, replaces=head.replaces)
    return _with_head(cut, head, classes, preprocessing.size)


def _with_head(cut: Split, head: Head, classes: int, size: int) -> Network:
    width = _width(nn.Sequential(*cut.stages.values()), size)
    return Network(dict(cut.stages), built_head(head, width, classes), cut.unused)


def _start_from_source(
    module: nn.Module, source: Source, classifier: str, head: SourceRowsHead, classes: Sequence[str]
) -> None:
    last = source.model.get_submodule(classifier)
    check_names(source.classes, last)
    rows = {classes.index(name): row for name, row in rows_by_class(head, classes, source.classes).items()}
    start_from_rows(linear_layers(module)[-1], rows, last, head.rest)


def _width(backbone: nn.Module, size: int) -> int:
    device = next(backbone.parameters()).device
    with torch.no_grad():
        return int(vectors(backbone.eval()(torch.zeros(1, 3, size, size, device=device))).shape[1])


def source_for(
    backbone: Backbone, random_start: bool, seed: int, cache: Path, mirror: str | None, size: int | None = None
) -> Source:
    """The source, its random parts decided by `seed`."""
    torch.manual_seed(seed)
    return source_of(backbone, random_start, cache, mirror, size)
