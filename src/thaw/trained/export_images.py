"""Images that an export is checked on: real ones, wherever they can be had without the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.config.faults import Fault, UserFault, listing
from thaw.data.build import samples_of, still_to_fetch
from thaw.data.cache import cache_folder
from thaw.data.image import BrokenImage
from thaw.data.preprocessing import Preprocessing
from thaw.trained.prediction import opened, seen
from thaw.trained.restore import Restored

MOST_IMAGES = 100


@dataclass(frozen=True)
class Shown:
    """`pixels` is uint8 [n, 3, size, size]; `said` names them, and says aloud where they are not real."""

    pixels: Tensor
    said: str


def images_for(trained: Restored, paths: Sequence[Path], root: str | None) -> Shown:
    """`paths`, all of them; else at most 100 test images of the run's data set, evenly spread over its classes, which
    may lie below `root`; else noise.

    Raises:
        UserFault: where one of `paths`, or a test image, is no image, or `root` holds no data set.
    """
    if paths:
        return Shown(
            _pixels(paths, trained.preprocessing), f"{len(paths)} real {'image' if len(paths) == 1 else 'images'}"
        )
    found = _test_images(trained, root)
    if not found:
        return Shown(_noise(trained.preprocessing.size), f"{MOST_IMAGES} images of noise, NOT on real ones")
    name = trained.recipe.dataset.name
    kind = "drawn test images" if trained.recipe.dataset.kind == "captcha" else "real test images"
    return Shown(_pixels(found, trained.preprocessing), f"{len(found)} {kind} of {name}")


def _test_images(trained: Restored, root: str | None) -> list[Path]:
    """None where the data set would have to be fetched."""
    recipe, dataset = trained.recipe, trained.recipe.dataset
    if root is not None:
        dataset = dataset.model_copy(update={"root": root})
    cache = cache_folder(recipe.data.cache)
    if still_to_fetch(dataset, cache):
        return []
    samples = samples_of(dataset, recipe.seed, cache, recipe.data.mirror)
    positions = samples.of("test")
    spread = np.linspace(0, len(positions) - 1, min(MOST_IMAGES, len(positions))).round().astype(int)
    return [samples.root / samples.samples[one].path for one in positions[spread]]


def _pixels(paths: Sequence[Path], preprocessing: Preprocessing) -> Tensor:
    images, broken = [], []
    for path in paths:
        try:
            images.append(seen(opened(path), preprocessing))
        except BrokenImage as error:
            broken.append(f"{path}: {error}")
    if broken:
        raise UserFault("images that cannot be decoded.", [Fault(listing(broken, 5), valid="images")])
    return torch.stack(images)


def _noise(size: int) -> Tensor:
    chance = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (MOST_IMAGES, 3, size, size), dtype=torch.uint8, generator=chance)
