"""Make images with structure, and folders of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def make_pixels(height: int, width: int, seed: int = 0) -> np.ndarray:
    """Make uint8 [height, width, 3]: waves and noise, so that tests notice a shift or a flip."""
    rng = np.random.default_rng(seed)
    rows, columns = np.arange(height)[:, None, None], np.arange(width)[:, None]
    waves = 128 + 60 * np.sin(rows / 7 + np.arange(3)) + 60 * np.cos(columns / 5 + np.arange(3))
    return np.clip(waves + rng.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)


def make_image(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(make_pixels(height, width, seed))


def write_class_folders(root: Path, counts: Mapping[str, int], first_seed: int = 0) -> Path:
    """Write `counts[CLASS]` images `root/CLASS/00.png` and so on, all different."""
    seed = first_seed
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            make_image(12 + seed % 3, 14, seed).save(root / name / f"{number:02}.png")
            seed += 1
    return root
