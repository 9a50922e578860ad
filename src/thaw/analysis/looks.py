"""What a trained network makes of some pictures, ready for a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from thaw.analysis.grad_cam import GradCam, grad_cam, upsample_maps
from thaw.data.preprocessing import Preprocessing
from thaw.network.cost import StageCost
from thaw.network.network import Network
from thaw.network.normalise import Normalize

MAX_IMAGES, MIN_IMAGES = 4, 2
MAX_MULTIPLY_ADDS = 1.5e9  # multiply-adds for all pictures: Lite0 at 224 pixels takes 0.4e9 a picture, ResNet-50 4.1e9
COLORMAP = "inferno"


@dataclass(frozen=True)
class ExplainedModel:
    """A trained network in evaluation mode, on the CPU, and what belongs to it. `pixels` gives uint8 [n, size, size, 3]
    of test images by path, as the network sees them before they are normalised. `unseen` says why the network cannot be
    looked into, if it cannot."""

    network: Network
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    stages: Sequence[StageCost]
    load_pixels: Callable[[Sequence[str]], np.ndarray]
    unavailable_reason: str = ""

    @property
    def max_images(self) -> int:
        """Of how many pictures Grad-CAM costs little."""
        return max(
            MIN_IMAGES, min(MAX_IMAGES, int(MAX_MULTIPLY_ADDS / sum(stage.multiply_adds for stage in self.stages)))
        )


def compute_grad_cam(model: ExplainedModel, pixels: np.ndarray, targets: np.ndarray) -> GradCam:
    """Grad-CAM of uint8 [n, size, size, 3], as `subject.pixels` gives them, for `targets`, int64 [n, k].

    Raises:
        ValueError: where no stage puts out maps, or it cannot be looked into.
    """
    if model.unavailable_reason:
        raise ValueError(model.unavailable_reason)
    images = Normalize(model.preprocessing)(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    images = images.to(next(model.network.parameters()).dtype)  # trainer.precision=64-true
    return grad_cam(model.network, images, torch.from_numpy(targets))


def overlay_cam(pixels: np.ndarray, cam: Tensor, side: int) -> np.ndarray:
    """uint8 [side, side, 3]: the square picture, under the colours of `cam`, [any, any] from 0 to 1."""
    heat = upsample_maps(cam[None, None], side)[0, 0].numpy()
    colours = (matplotlib.colormaps[COLORMAP](np.arange(256))[:, :3] * 255).astype(np.float32)[
        (heat * 255).astype(np.uint8)
    ]
    opacity = (0.25 + 0.4 * heat)[..., None]
    image = np.asarray(Image.fromarray(pixels).resize((side, side)), dtype=np.float32)
    blended: np.ndarray = (image + (colours - image) * opacity).round().astype(np.uint8)
    return blended
