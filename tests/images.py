"""Write small image folders whose classes a network can distinguish."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image


def write_image_folder(root: Path, counts: Mapping[str, int], classes: Sequence[str], side: int = 40) -> Path:
    """Write `counts[split]` images of each class to `root/SPLIT/CLASS/00.png`: noise around one color per class."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for label, name in enumerate(classes):
            folder = root / split / name
            folder.mkdir(parents=True)
            color = np.array([[40, 200, 90], [220, 80, 40], [60, 60, 220]][label % 3])
            for index in range(count):
                pixels = np.clip(color + rng.normal(0, 30, (side, side + 8, 3)), 0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(folder / f"{index:02}.png")
    return root
