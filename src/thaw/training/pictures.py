"""What TensorBoard shows of the data before the first step: class counts, and samples as training sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image

from thaw.analysis.dataset_plots import class_counts
from thaw.analysis.encoded import jpeg_of, png_of
from thaw.analysis.picked import as_they_are, as_trained_on, picked_by_class
from thaw.data.batches import Images
from thaw.data.samples import Samples
from thaw.training.board import add_picture

MOST_SHOWN = 16
LARGEST = 128  # pixels, a picture's side


def show_data(trainer: pl.Trainer, samples: Samples, images: Images) -> None:
    """Images `data/class_counts`, `data/samples` and, where training augments, `data/augmented`: the same samples in
    its first epoch. Takes less than a second, whatever the size of the data set."""
    assert trainer.logger is not None
    writer: Any = trainer.logger.experiment  # type: ignore[attr-defined]
    add_picture(writer, "data/class_counts", png_of(class_counts(samples), dpi=100))
    each = max(1, MOST_SHOWN // len(samples.classes))
    picked = picked_by_class(samples, each, MOST_SHOWN).values()
    places = [place for positions in picked for place in positions][:MOST_SHOWN]
    add_picture(writer, "data/samples", jpeg_of(tiled(small(as_they_are(images, places)))))
    if not images.augmentation.is_empty:
        add_picture(writer, "data/augmented", jpeg_of(tiled(small(as_trained_on(images, 0, places)))))


def small(pictures: np.ndarray) -> np.ndarray:
    """uint8 [n, side, side, 3] of uint8 [n, size, size, 3], `side` at most LARGEST."""
    side = min(LARGEST, pictures.shape[1])
    return np.stack([np.asarray(Image.fromarray(one).resize((side, side))) for one in pictures])


def tiled(pictures: np.ndarray, columns: int = 4, gap: int = 2) -> np.ndarray:
    """uint8 [height, width, 3] of uint8 [n, height, width, 3]: side by side on white, `gap` pixels apart."""
    height, width = (side + gap for side in pictures[0].shape[:2])
    rows, columns = -(-len(pictures) // columns), min(columns, len(pictures))
    sheet = np.full((rows * height - gap, columns * width - gap, 3), 255, dtype=np.uint8)
    for number, picture in enumerate(pictures):
        top, left = number // columns * height, number % columns * width
        sheet[top : top + height - gap, left : left + width - gap] = picture
    return sheet
