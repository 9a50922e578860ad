"""DeepDream: change an image to increase the activations of a stage.

Mordvintsev, Olah and Tyka 2015, Inceptionism: Going Deeper into Neural Networks. Networks with position embeddings take
images of one size only; therefore an octave is a coarser change of the whole image, not a smaller image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from thaw.models.network import Network

OCTAVE_SCALE = 1.4
MAX_JITTER = 16  # pixels; without shifts between steps, the patterns follow the strides of the layers


@dataclass(frozen=True)
class DeepDreamSettings:
    """Gradient ascent on the activations of `stage`: `steps` in each of `octaves`, the coarsest first.

    A step changes a pixel by `rate` standard deviations of the pretraining images on average.
    """

    stage: str
    steps: int = 20
    octaves: int = 4
    rate: float = 0.02
    seed: int = 0


def deep_dream(
    network: Network, image: Tensor, min_values: Tensor, max_values: Tensor, settings: DeepDreamSettings
) -> Tensor:
    """Change a normalized image [1, 3, size, size] to increase the mean square of the output of `settings.stage`.

    Values stay between `min_values` and `max_values`, [1, 3, 1, 1]. On a CPU each call gives the same result. `network`
    must be in evaluation mode and is not changed.
    """
    depth, size = list(network.stages).index(settings.stage) + 1, image.shape[-1]
    generator = torch.Generator().manual_seed(settings.seed)
    perturbation = torch.zeros_like(image)
    for octave in reversed(range(settings.octaves)):
        side = max(1, round(size / OCTAVE_SCALE**octave))
        perturbation = _resize(perturbation, side)
        for _ in range(settings.steps):
            shifts = torch.randint(-MAX_JITTER, MAX_JITTER + 1, (2,), generator=generator).tolist()
            gradient = _compute_gradient(network, image, perturbation, depth, shifts)
            perturbation = perturbation + settings.rate * gradient / gradient.abs().mean().clamp(min=1e-12)
    return torch.minimum(torch.maximum(image + _resize(perturbation, size), min_values), max_values)


def _compute_gradient(network: Network, image: Tensor, perturbation: Tensor, depth: int, shifts: list[int]) -> Tensor:
    with torch.enable_grad():
        leaf = perturbation.detach().requires_grad_()
        shifted = torch.roll(image + _resize(leaf, image.shape[-1]), shifts, (2, 3))
        activation = network.forward_stages(shifted, 0, depth).square().mean()
        (gradient,) = torch.autograd.grad(activation, leaf)
    return gradient


def _resize(images: Tensor, side: int) -> Tensor:
    if images.shape[-1] == side:
        return images
    return F.interpolate(images, (side, side), mode="bicubic", align_corners=False)
