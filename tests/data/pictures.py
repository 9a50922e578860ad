"""Pictures with structure, and folders of them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def pixels_of(height: int, width: int, seed: int = 0) -> np.ndarray:
    """uint8 [height, width, 3]: slow waves under noise, so that neither shift nor mirror image goes unseen."""
    dice = np.random.default_rng(seed)
    rows, columns = np.arange(height)[:, None, None], np.arange(width)[:, None]
    waves = 128 + 60 * np.sin(rows / 7 + np.arange(3)) + 60 * np.cos(columns / 5 + np.arange(3))
    return np.clip(waves + dice.normal(0, 20, (height, width, 3)), 0, 255).astype(np.uint8)


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    return Image.fromarray(pixels_of(height, width, seed))


def class_folders(root: Path, counts: Mapping[str, int], first_seed: int = 0) -> Path:
    """`root/CLASS/00.png` and so on, `counts[CLASS]` of them, no two alike."""
    seed = first_seed
    for name, count in counts.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            picture(12 + seed % 3, 14, seed).save(root / name / f"{number:02}.png")
            seed += 1
    return root
