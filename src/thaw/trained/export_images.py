"""Images that an export is checked on: real ones, wherever they can be had without the network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from thaw.config.faults import Problem, UserError, format_names
from thaw.data.build import load_samples, missing_download
from thaw.data.cache import resolve_cache_dir
from thaw.data.image import BrokenImageError
from thaw.data.preprocessing import Preprocessing
from thaw.trained.prediction import open_image, preprocess
from thaw.trained.restore import Classifier

MAX_IMAGES = 100


@dataclass(frozen=True)
class CheckImages:
    """`pixels` is uint8 [n, 3, size, size]; `said` names them, and says aloud where they are not real."""

    pixels: Tensor
    description: str


def load_check_images(classifier: Classifier, paths: Sequence[Path], root: str | None) -> CheckImages:
    """`paths`, all of them; else at most 100 test images of the run's data set, evenly spread over its classes, which
    may lie below `root`; else noise.

    Raises:
        UserFault: where one of `paths`, or a test image, is no image, or `root` holds no data set.
    """
    if paths:
        return CheckImages(
            _load_pixels(paths, classifier.preprocessing),
            f"{len(paths)} real {'image' if len(paths) == 1 else 'images'}",
        )
    test_paths = _list_test_images(classifier, root)
    if not test_paths:
        return CheckImages(
            _generate_noise(classifier.preprocessing.size), f"{MAX_IMAGES} images of noise, NOT on real ones"
        )
    name = classifier.recipe.dataset.name
    kind = "drawn test images" if classifier.recipe.dataset.kind == "captcha" else "real test images"
    return CheckImages(_load_pixels(test_paths, classifier.preprocessing), f"{len(test_paths)} {kind} of {name}")


def _list_test_images(classifier: Classifier, root: str | None) -> list[Path]:
    """None where the data set would have to be fetched."""
    recipe, dataset = classifier.recipe, classifier.recipe.dataset
    if root is not None:
        dataset = dataset.model_copy(update={"root": root})
    cache_dir = resolve_cache_dir(recipe.data.cache)
    if missing_download(dataset, cache_dir):
        return []
    samples = load_samples(dataset, recipe.seed, cache_dir, recipe.data.mirror)
    positions = samples.get_positions("test")
    sampled_indices = np.linspace(0, len(positions) - 1, min(MAX_IMAGES, len(positions))).round().astype(int)
    return [samples.root / samples.samples[position].path for position in positions[sampled_indices]]


def _load_pixels(paths: Sequence[Path], preprocessing: Preprocessing) -> Tensor:
    images, messages = [], []
    for path in paths:
        try:
            images.append(preprocess(open_image(path), preprocessing))
        except BrokenImageError as error:
            messages.append(f"{path}: {error}")
    if messages:
        raise UserError("images that cannot be decoded.", [Problem(format_names(messages, 5), valid="images")])
    return torch.stack(images)


def _generate_noise(size: int) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (MAX_IMAGES, 3, size, size), dtype=torch.uint8, generator=generator)
