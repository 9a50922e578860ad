"""What a trained network makes of some pictures, ready for a page."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from thaw.analysis.grad_cam import GradCam, enlarged, grad_cam
from thaw.data.preprocessing import Preprocessing
from thaw.network.cost import StageCost
from thaw.network.network import Network
from thaw.network.normalise import Normalise

MOST_PICTURES, FEWEST_PICTURES = 4, 2
AFFORDABLE = 1.5e9  # multiply-adds for all pictures: Lite0 at 224 pixels takes 0.4e9 a picture, ResNet-50 4.1e9
HEAT = "inferno"


@dataclass(frozen=True)
class Subject:
    """A trained network in evaluation mode, on the CPU, and what belongs to it. `pixels` gives uint8 [n, size, size, 3]
    of test images by path, as the network sees them before they are normalised. `unseen` says why the network cannot be
    looked into, if it cannot."""

    network: Network
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    stages: Sequence[StageCost]
    pixels: Callable[[Sequence[str]], np.ndarray]
    unseen: str = ""

    @property
    def affordable(self) -> int:
        """Of how many pictures Grad-CAM costs little."""
        return max(FEWEST_PICTURES, min(MOST_PICTURES, int(AFFORDABLE / sum(one.multiply_adds for one in self.stages))))


def looked_at(subject: Subject, pixels: np.ndarray, targets: np.ndarray) -> GradCam:
    """Grad-CAM of uint8 [n, size, size, 3], as `subject.pixels` gives them, for `targets`, int64 [n, k].

    Raises:
        ValueError: where no stage puts out maps, or it cannot be looked into.
    """
    if subject.unseen:
        raise ValueError(subject.unseen)
    images = Normalise(subject.preprocessing)(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    images = images.to(next(subject.network.parameters()).dtype)  # trainer.precision=64-true
    return grad_cam(subject.network, images, torch.from_numpy(targets))


def overlaid(pixels: np.ndarray, cam: Tensor, side: int) -> np.ndarray:
    """uint8 [side, side, 3]: the square picture, under the colours of `cam`, [any, any] from 0 to 1."""
    heat = enlarged(cam[None, None], side)[0, 0].numpy()
    colours = (matplotlib.colormaps[HEAT](np.arange(256))[:, :3] * 255).astype(np.float32)[
        (heat * 255).astype(np.uint8)
    ]
    strength = (0.25 + 0.4 * heat)[..., None]
    picture = np.asarray(Image.fromarray(pixels).resize((side, side)), dtype=np.float32)
    mixed: np.ndarray = (picture + (colours - picture) * strength).round().astype(np.uint8)
    return mixed
