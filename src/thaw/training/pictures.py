"""What TensorBoard shows of the data before the first step: class counts, and samples as training sees them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytorch_lightning as pl
from PIL import Image

from thaw.analysis.dataset_plots import plot_class_counts
from thaw.analysis.encoded import encode_jpeg, encode_png
from thaw.analysis.picked import evaluation_pixels, select_class_examples, training_pixels
from thaw.data.batches import ImageDataset
from thaw.data.samples import Samples
from thaw.training.board import add_encoded_image

MAX_IMAGES_SHOWN = 16
MAX_SIDE = 128  # pixels, a picture's side


def log_dataset(trainer: pl.Trainer, samples: Samples, images: ImageDataset) -> None:
    """Images `data/class_counts`, `data/samples` and, where training augments, `data/augmented`: the same samples in
    its first epoch. Takes less than a second, whatever the size of the data set."""
    assert trainer.logger is not None
    writer: Any = trainer.logger.experiment  # type: ignore[attr-defined]
    add_encoded_image(writer, "data/class_counts", encode_png(plot_class_counts(samples), dpi=100))
    num_per_class = max(1, MAX_IMAGES_SHOWN // len(samples.classes))
    positions_by_class = select_class_examples(samples, num_per_class, MAX_IMAGES_SHOWN).values()
    sample_positions = [position for class_positions in positions_by_class for position in class_positions][
        :MAX_IMAGES_SHOWN
    ]
    add_encoded_image(
        writer, "data/samples", encode_jpeg(tile_images(downscale_images(evaluation_pixels(images, sample_positions))))
    )
    if not images.augmentation.is_empty:
        add_encoded_image(
            writer,
            "data/augmented",
            encode_jpeg(tile_images(downscale_images(training_pixels(images, 0, sample_positions)))),
        )


def downscale_images(images: np.ndarray) -> np.ndarray:
    """uint8 [n, side, side, 3] of uint8 [n, size, size, 3], `side` at most LARGEST."""
    side = min(MAX_SIDE, images.shape[1])
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side))) for image in images])


def tile_images(images: np.ndarray, columns: int = 4, gap: int = 2) -> np.ndarray:
    """uint8 [height, width, 3] of uint8 [n, height, width, 3]: side by side on white, `gap` pixels apart."""
    height, width = (side + gap for side in images[0].shape[:2])
    rows, columns = -(-len(images) // columns), min(columns, len(images))
    grid = np.full((rows * height - gap, columns * width - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(images):
        top, left = index // columns * height, index % columns * width
        grid[top : top + height - gap, left : left + width - gap] = image
    return grid
