"""Which parameters of a stage are normalisation, which are biases; which layers are BatchNorm."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def select_parameters(part: nn.Module, kind: str) -> list[nn.Parameter]:
    """`all`, `norms` (weights and biases of every normalisation layer), or `biases` (those of normalisations too, as in
    BitFit, Ben Zaken et al. 2021)."""
    if kind == "norms":
        return [
            parameter
            for layer in part.modules()
            if _is_normalization(layer)
            for parameter in layer.parameters(recurse=False)
        ]
    return [parameter for name, parameter in part.named_parameters() if kind == "all" or name.endswith("bias")]


def _is_normalization(layer: nn.Module) -> bool:
    """By its class's name, as timm and torchvision have their own: LayerNorm2d, BatchNormAct2d, RmsNorm, GroupNorm1."""
    return "norm" in type(layer).__name__.lower()


def get_batchnorm_layers(part: nn.Module) -> list[nn.Module]:
    """Layers with running statistics."""
    return [layer for layer in part.modules() if isinstance(layer, _BatchNorm)]


def convert_to_sync_batchnorm(network: nn.Module) -> None:
    """Puts layers that normalise by the batches of all processes, on GPUs, in the place of BatchNorm, with the same
    weights, statistics and names. timm's way: torch's would lose the activation that timm's layers have in them."""
    from timm.layers import convert_sync_batchnorm

    convert_sync_batchnorm(network)


def count_parameters(parameters: list[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
