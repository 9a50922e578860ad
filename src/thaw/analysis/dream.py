"""DeepDream: a picture changed so that a stage answers more strongly to it.

Mordvintsev, Olah and Tyka 2015, Inceptionism: Going Deeper into Neural Networks. Networks with position embeddings take
images of one size alone, so that an octave is not a smaller picture but a coarser change of the whole one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.network.network import Network

OCTAVE_SCALE = 1.4
JITTER = 16  # pixels: shifts between the steps, without which the patterns stick to the strides of the layers


@dataclass(frozen=True)
class Dreaming:
    """`steps` in each of `octaves`, the coarsest first; a step changes a pixel by `rate` deviations of the source's
    images on average."""

    stage: str
    steps: int = 20
    octaves: int = 4
    rate: float = 0.02
    seed: int = 0


def dreamt(network: Network, image: Tensor, least: Tensor, most: Tensor, how: Dreaming) -> Tensor:
    """A normalised image [1, 3, size, size], climbing the mean square of what `how.stage` puts out; its values stay
    between `least` and `most`, [1, 3, 1, 1]. The same on every call on a CPU. `network` is in evaluation mode, and
    stays as it is."""
    depth, size = list(network.stages).index(how.stage) + 1, image.shape[-1]
    dice = torch.Generator().manual_seed(how.seed)
    change = torch.zeros_like(image)
    for octave in reversed(range(how.octaves)):
        side = max(1, round(size / OCTAVE_SCALE**octave))
        change = _resized(change, side)
        for _ in range(how.steps):
            shifts = torch.randint(-JITTER, JITTER + 1, (2,), generator=dice).tolist()
            slope = _slope(network, image, change, depth, shifts)
            change = change + how.rate * slope / slope.abs().mean().clamp(min=1e-12)
    return torch.minimum(torch.maximum(image + _resized(change, size), least), most)


def _slope(network: Network, image: Tensor, change: Tensor, depth: int, shifts: list[int]) -> Tensor:
    with torch.enable_grad():
        leaf = change.detach().requires_grad_()
        seen = torch.roll(image + _resized(leaf, image.shape[-1]), shifts, (2, 3))
        answer = network.through(seen, 0, depth).square().mean()
        (slope,) = torch.autograd.grad(answer, leaf)
    return slope


def _resized(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, (side, side), mode="bicubic", align_corners=False)
