"""Crop an image for evaluation: its center, or several views whose probabilities are averaged."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

CROP_KINDS = ("five_crop", "ten_crop")
FLIP_KINDS = ("flip", "ten_crop")


def build_views(image: Tensor, size: int, kind: str) -> Tensor:
    """Return views of `image` [3, height, width] as [views, 3, size, size].

    `flip` is the center and its mirror image, `five_crop` the center and four corners, `ten_crop` these five and their
    mirror images (Krizhevsky, Sutskever and Hinton 2012).
    """
    crops = [center_crop(image, size)]
    if kind in CROP_KINDS:
        bottom, right = (side - size for side in image.shape[1:])
        corners = [(top, left) for top in (0, bottom) for left in (0, right)]
        crops += [image[:, top : top + size, left : left + size] for top, left in corners]
    if kind in FLIP_KINDS:
        crops += [crop.flip(2) for crop in crops]
    return torch.stack(crops)


def center_crop(image: Tensor, size: int) -> Tensor:
    """Crop [3, size, size] from the center of [3, height, width], with torchvision's rounding."""
    top, left = (round((side - size) / 2.0) for side in image.shape[1:])
    return image[:, top : top + size, left : left + size]


def average_over_views(compute_logits: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """Return the logarithm of the mean of the views' probabilities, float [n, classes], for images
    [n, views, 3, size, size].

    It can be used as logits, because its softmax is that mean. Views are computed one after another, which takes no
    more memory than a prediction without views.
    """
    log_probabilities = [compute_logits(view).float().log_softmax(1) for view in images.unbind(1)]
    return torch.stack(log_probabilities).logsumexp(0) - math.log(len(log_probabilities))
