"""Layers by kind."""

from __future__ import annotations

import timm
import torch
from torch import nn

from thaw.models.network import convert_to_sync_batchnorm, get_batchnorm_layers


def test_synchronized_batchnorm_has_the_same_weights_and_outputs() -> None:
    """Lite0's BatchNorm layers contain the activation."""
    torch.manual_seed(0)
    network = timm.create_model("tf_efficientnet_lite0", num_classes=3).eval()
    before, images = network.state_dict(), torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        expected = network(images)
        convert_to_sync_batchnorm(network)
        assert torch.equal(network(images), expected)
    layers = get_batchnorm_layers(network)
    assert len(layers) == 49
    assert all(isinstance(layer, nn.SyncBatchNorm) for layer in layers)
    after = network.state_dict()
    assert list(after) == list(before)
    assert all(after[name] is value or torch.equal(after[name], value) for name, value in before.items())
