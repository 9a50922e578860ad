"""The head, the layers between features and logits: construction and initialization."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from thaw.config.schema import Activation, CosineHeadConfig, HeadConfig, Initialization, MlpHeadConfig

ACTIVATIONS: dict[Activation, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
}


def build_head(head: HeadConfig, width: int, num_classes: int) -> nn.Module:
    """Build the head [n, width] -> [n, classes] in torch's own initialization."""
    if isinstance(head, MlpHeadConfig):
        return build_mlp_head(width, head.hidden, num_classes, head.activation, head.dropout)
    if isinstance(head, CosineHeadConfig):
        return nn.Sequential(
            *_build_dropout(head.dropout), CosineLinear(width, num_classes, head.scale, head.learn_scale)
        )
    return build_linear_head(width, num_classes, head.dropout)


def build_linear_head(width: int, num_classes: int, dropout: float) -> nn.Sequential:
    """Build dropout and one linear layer: [n, width] -> [n, classes]."""
    return nn.Sequential(*_build_dropout(dropout), nn.Linear(width, num_classes))


def build_mlp_head(
    width: int, hidden: Sequence[int], num_classes: int, activation: Activation, dropout: float
) -> nn.Sequential:
    """Build linear layers of `hidden` widths, each followed by activation and dropout, and the last linear layer.

    [n, width] -> [n, classes].
    """
    layers: list[nn.Module] = []
    for in_features, out_features in zip([width, *hidden], hidden, strict=False):
        layers += [nn.Linear(in_features, out_features), ACTIVATIONS[activation](), *_build_dropout(dropout)]
    return nn.Sequential(*layers, nn.Linear(hidden[-1], num_classes))


class CosineLinear(nn.Module):
    """Features [n, width] -> [n, classes]: `scale` times the cosine between the features and a vector per class.

    Gidaris and Komodakis 2018, Dynamic Few-Shot Visual Learning without Forgetting, section 3.2.
    """

    scale: Tensor

    def __init__(self, width: int, num_classes: int, scale: float, learn_scale: bool) -> None:
        super().__init__()
        self.vectors = nn.Linear(width, num_classes, bias=False)
        if learn_scale:
            self.scale = nn.Parameter(torch.tensor(scale))
        else:
            self.register_buffer("scale", torch.tensor(scale))

    def forward(self, features: Tensor) -> Tensor:
        """Compute logits [n, classes]."""
        return self.scale * F.linear(F.normalize(features, dim=1), F.normalize(self.vectors.weight, dim=1))


def init_head(module: nn.Module, initialization: Initialization) -> None:
    """Draw new weights for the linear layers of `module` and set their biases to 0.

    `torch` leaves the layers as torch initialized them. `zero` applies to the last layer alone: a hidden layer of zeros
    would pass no gradient on.
    """
    layers = get_linear_layers(module)
    for layer in layers[-1:] if initialization == "zero" else layers:
        init_weights(layer, initialization)


def init_weights(layer: nn.Linear, initialization: Initialization) -> None:
    """Draw new weights for `layer` and set its bias to 0; `torch` leaves it as it is.

    `xavier` is uniform (Glorot and Bengio 2010), `kaiming` normal with ReLU's gain (He et al. 2015).
    """
    if initialization == "torch":
        return
    if initialization == "xavier":
        nn.init.xavier_uniform_(layer.weight)
    elif initialization == "kaiming":
        nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    else:
        nn.init.zeros_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def get_linear_layers(module: nn.Module) -> list[nn.Linear]:
    """Return the linear layers of `module` from input to output."""
    return [layer for layer in module.modules() if isinstance(layer, nn.Linear)]


def _build_dropout(probability: float) -> list[nn.Module]:
    return [nn.Dropout(probability)] if probability else []
