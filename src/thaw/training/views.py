"""Predictions from several views of an image."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor


def average_over_views(compute_logits: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """float [n, classes] of images [n, views, 3, size, size]: the logarithm of the mean of the views' probabilities,
    which is as good as logits, for its softmax is that mean. One view at a time, in the memory of plain prediction."""
    log_probabilities = [compute_logits(view).float().log_softmax(1) for view in images.unbind(1)]
    return torch.stack(log_probabilities).logsumexp(0) - math.log(len(log_probabilities))
