"""A forward pass that only looks: one image of zeros, with hooks, and nothing left behind."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle


def forward_zeros(model: nn.Module, size: int, hooks: Sequence[RemovableHandle] = ()) -> None:
    """Puts zeros [1, 3, size, size] through `model`, which has parameters, in evaluation mode and without gradients.
    Behind it the mode is what it was, and `hooks` are removed, also where the model does not take such an image."""
    was_training = model.training
    try:
        with torch.no_grad():
            model.eval()(torch.zeros(1, 3, size, size, device=next(model.parameters()).device))
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
