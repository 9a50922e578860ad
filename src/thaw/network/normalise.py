"""Images as the source weights expect them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thaw.data.preprocessing import Preprocessing


class Normalize(nn.Module):
    """[n, 3, height, width] on the 0..255 scale -> mean and deviation of the source's images at 0 and 1. Its numbers
    are no part of a state_dict: the preprocessing stands beside the weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.register_buffer("mean", _to_channel_tensor(preprocessing.mean), persistent=False)
        self.register_buffer("deviation", _to_channel_tensor(preprocessing.deviation), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        return (images.to(self.mean.dtype) - self.mean) / self.std


def _to_channel_tensor(values: tuple[float, float, float]) -> Tensor:
    """0..1 statistics as [1, 3, 1, 1] on the 0..255 scale."""
    return torch.tensor(values, dtype=torch.float32).view(1, 3, 1, 1) * 255
