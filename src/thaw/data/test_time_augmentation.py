"""What evaluation sees of an image: its centre, or several views of it."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

CROP_KINDS = ("five_crop", "ten_crop")
FLIP_KINDS = ("flip", "ten_crop")


def build_views(image: Tensor, size: int, kind: str) -> Tensor:
    """[views, 3, size, size] of [3, height, width]. `flip`: the centre and its mirror image; `five_crop`: four corners
    and the centre; `ten_crop`: both, as Krizhevsky, Sutskever and Hinton 2012 averaged over."""
    crops = [center_crop(image, size)]
    if kind in CROP_KINDS:
        bottom, right = (side - size for side in image.shape[1:])
        corners = [(top, left) for top in (0, bottom) for left in (0, right)]
        crops += [image[:, top : top + size, left : left + size] for top, left in corners]
    if kind in FLIP_KINDS:
        crops += [crop.flip(2) for crop in crops]
    return torch.stack(crops)


def center_crop(image: Tensor, size: int) -> Tensor:
    """[3, size, size] from [3, height, width], rounded as torchvision rounds."""
    top, left = (round((side - size) / 2.0) for side in image.shape[1:])
    return image[:, top : top + size, left : left + size]


def average_over_views(compute_logits: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """float [n, classes] of images [n, views, 3, size, size]: the logarithm of the mean of the views' probabilities,
    which is as good as logits, for its softmax is that mean. One view at a time, in the memory of plain prediction."""
    log_probabilities = [compute_logits(view).float().log_softmax(1) for view in images.unbind(1)]
    return torch.stack(log_probabilities).logsumexp(0) - math.log(len(log_probabilities))
