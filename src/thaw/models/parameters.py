"""Parameters by kind (normalization, biases) and layers with BatchNorm statistics."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def select_parameters(part: nn.Module, kind: str) -> list[nn.Parameter]:
    """Return the parameters of `part` of one `kind`.

    `all`, `norms` (weights and biases of all normalization layers) or `biases` (those of normalization layers too, as
    in BitFit, Ben Zaken et al. 2021).
    """
    if kind == "norms":
        return [
            parameter
            for layer in part.modules()
            if _is_normalization(layer)
            for parameter in layer.parameters(recurse=False)
        ]
    return [parameter for name, parameter in part.named_parameters() if kind == "all" or name.endswith("bias")]


def _is_normalization(layer: nn.Module) -> bool:
    """Decide by the name of the class, since timm and torchvision have their own: LayerNorm2d, BatchNormAct2d,
    RmsNorm, GroupNorm1."""
    return "norm" in type(layer).__name__.lower()


def get_batchnorm_layers(part: nn.Module) -> list[nn.Module]:
    """Return the layers with running statistics."""
    return [layer for layer in part.modules() if isinstance(layer, _BatchNorm)]


def convert_to_sync_batchnorm(network: nn.Module) -> None:
    """Replace BatchNorm layers, in place, by layers that normalize over the batches of all processes (GPUs only).

    Weights, statistics and names stay. Uses timm's function: torch's would lose the activation inside timm's layers.
    """
    from timm.layers import convert_sync_batchnorm

    convert_sync_batchnorm(network)


def count_parameters(parameters: list[nn.Parameter]) -> int:
    """Count the numbers in `parameters`."""
    return sum(parameter.numel() for parameter in parameters)
