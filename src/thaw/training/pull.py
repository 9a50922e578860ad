"""L2-SP: trained backbone weights are pulled towards the source weights instead of towards zero."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class SourcePull:
    """Adds `strength` x (weight - source weight) to gradients: the gradient of the paper's penalty, strength / 2 times
    the squared distance (Li, Grandvalet and Davoine 2018, "Explicit inductive bias for transfer learning")."""

    def __init__(self, parameters: Sequence[nn.Parameter], strength: float) -> None:
        self.parameters, self.strength = tuple(parameters), strength
        self.source: list[Tensor] = [one.detach().clone() for one in parameters]

    def to(self, device: torch.device) -> None:
        self.source = [one.to(device) for one in self.source]

    def add_to_gradients(self) -> None:
        """Of those that have one: what is frozen in this phase has none."""
        moving = [
            (one, source) for one, source in zip(self.parameters, self.source, strict=True) if one.grad is not None
        ]
        if moving:
            weights, sources = zip(*moving, strict=True)
            apart = torch._foreach_sub([one.detach() for one in weights], list(sources))
            torch._foreach_add_([one.grad for one in weights], apart, alpha=self.strength)
