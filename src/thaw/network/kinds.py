"""Which parameters of a stage are normalisation, which are biases; which layers are BatchNorm."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def parameters_of(part: nn.Module, kind: str) -> list[nn.Parameter]:
    """`all`, `norms` (weights and biases of every normalisation layer), or `biases` (those of normalisations too, as in
    BitFit, Ben Zaken et al. 2021)."""
    if kind == "norms":
        return [one for layer in part.modules() if _normalises(layer) for one in layer.parameters(recurse=False)]
    return [one for name, one in part.named_parameters() if kind == "all" or name.endswith("bias")]


def _normalises(layer: nn.Module) -> bool:
    """By its class's name, as timm and torchvision have their own: LayerNorm2d, BatchNormAct2d, RmsNorm, GroupNorm1."""
    return "norm" in type(layer).__name__.lower()


def batchnorms(part: nn.Module) -> list[nn.Module]:
    """Layers with running statistics."""
    return [layer for layer in part.modules() if isinstance(layer, _BatchNorm)]


def synchronise_batchnorm(network: nn.Module) -> None:
    """Puts layers that normalise by the batches of all processes, on GPUs, in the place of BatchNorm, with the same
    weights, statistics and names. timm's way: torch's would lose the activation that timm's layers have in them."""
    from timm.layers import convert_sync_batchnorm

    convert_sync_batchnorm(network)


def size_of(parameters: list[nn.Parameter]) -> int:
    return sum(one.numel() for one in parameters)
