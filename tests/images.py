"""Small image folders that a network can tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def image_folder(root: Path, counts: Mapping[str, int], classes: Sequence[str], side: int = 40) -> Path:
    """`root/SPLIT/CLASS/00.png`: noise around a colour a class; `counts` are images a class and split."""
    dice = np.random.default_rng(0)
    for split, count in counts.items():
        for number, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            colour = np.array([[40, 200, 90], [220, 80, 40], [60, 60, 220]][number % 3])
            for index in range(count):
                pixels = np.clip(colour + dice.normal(0, 30, (side, side + 8, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return root
