"""Build a network from the recipe's backbone and head, for the classes of a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from thaw.config.schema import BackboneConfig, HeadConfig, SourceRowsHeadConfig
from thaw.data.preprocessing import Preprocessing
from thaw.models.head import build_head, get_linear_layers, init_head
from thaw.models.network import Network, pool
from thaw.models.pretrained import PretrainedModel, load_pretrained
from thaw.models.source_rows import check_source_class_names, init_from_rows, match_rows_to_classes
from thaw.models.stages import BackboneSplit, split_backbone
from thaw.system.reporter import SILENT, Reporter


def build_network(
    pretrained: PretrainedModel, head: HeadConfig, classes: Sequence[str], preprocessing: Preprocessing
) -> Network:
    """Split the pretrained model into stages and replace its classifier by a head for `classes`.

    Raises:
        UserError: where the model does not take images of this size, or does not have the classes that `head` asks for.
    """
    backbone_split = split_backbone(pretrained.model, preprocessing.size, replaces=head.replaces)
    network = _attach_head(backbone_split, head, len(classes), preprocessing.size)
    if isinstance(head, SourceRowsHeadConfig):
        _init_head_from_pretrained(network.head, pretrained, backbone_split.classifier_path, head, classes)
    else:
        init_head(network.head, head.initialization)
    return network


def uninitialized_network(
    pretrained: PretrainedModel, head: HeadConfig, num_classes: int, preprocessing: Preprocessing
) -> Network:
    """Build a network of the same shapes as `build_network`, to load the weights of a checkpoint into."""
    backbone_split = split_backbone(pretrained.model, preprocessing.size, replaces=head.replaces)
    return _attach_head(backbone_split, head, num_classes, preprocessing.size)


def _attach_head(backbone_split: BackboneSplit, head: HeadConfig, num_classes: int, size: int) -> Network:
    width = _compute_feature_width(nn.Sequential(*backbone_split.stages.values()), size)
    return Network(dict(backbone_split.stages), build_head(head, width, num_classes), backbone_split.unused_parameters)


def _init_head_from_pretrained(
    head_module: nn.Module,
    pretrained: PretrainedModel,
    classifier_path: str,
    head: SourceRowsHeadConfig,
    classes: Sequence[str],
) -> None:
    last_layer = pretrained.model.get_submodule(classifier_path)
    check_source_class_names(pretrained.classes, last_layer)
    rows = {classes.index(name): row for name, row in match_rows_to_classes(head, classes, pretrained.classes).items()}
    init_from_rows(get_linear_layers(head_module)[-1], rows, last_layer, head.rest)


def _compute_feature_width(backbone: nn.Module, size: int) -> int:
    device = next(backbone.parameters()).device
    with torch.no_grad():
        return int(pool(backbone.eval()(torch.zeros(1, 3, size, size, device=device))).shape[1])


def load_seeded_pretrained(
    backbone: BackboneConfig,
    random_init: bool,
    seed: int,
    cache_dir: Path,
    mirror: str | None,
    size: int | None = None,
    reporter: Reporter = SILENT,
) -> PretrainedModel:
    """Load the pretrained model; `seed` decides its random parts."""
    torch.manual_seed(seed)
    return load_pretrained(backbone, random_init, cache_dir, mirror, size, reporter)
