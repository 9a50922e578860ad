"""L2-SP: trained backbone weights are pulled towards the source weights instead of towards zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class L2SPRegularizer:
    """Adds `strength` x (weight - source weight) to gradients: the gradient of the paper's penalty, strength / 2 times
    the squared distance (Li, Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning")."""

    def __init__(self, parameters: Sequence[nn.Parameter], strength: float) -> None:
        self.parameters, self.strength = tuple(parameters), strength
        self.pretrained: list[Tensor] = [parameter.detach().clone() for parameter in parameters]

    def to(self, device: torch.device) -> None:
        self.pretrained = [weight.to(device) for weight in self.pretrained]

    def add_to_gradients(self) -> None:
        """Of those that have one: what is frozen in this phase has none."""
        pairs = [
            (parameter, pretrained)
            for parameter, pretrained in zip(self.parameters, self.pretrained, strict=True)
            if parameter.grad is not None
        ]
        if pairs:
            weights, pretrained_weights = zip(*pairs, strict=True)
            differences = torch._foreach_sub([parameter.detach() for parameter in weights], list(pretrained_weights))
            torch._foreach_add_([parameter.grad for parameter in weights], differences, alpha=self.strength)
