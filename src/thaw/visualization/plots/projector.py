"""Write features for TensorBoard's projector: vectors, metadata, and a sprite of thumbnails."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image

from thaw.data.batches import ImageDataset
from thaw.data.readers import escape_path
from thaw.data.samples import Samples
from thaw.visualization.plots.example_images import evaluation_pixels

MAX_SPRITE_SIDE = 8192  # pixels; the projector refuses a sprite with a longer side
MIN_THUMBNAIL_SIDE = 32  # pixels; smaller ones cannot be recognized
MAX_THUMBNAIL_SIDE = 64  # pixels; the projector does not display more
MAX_IMAGES = (MAX_SPRITE_SIDE // MIN_THUMBNAIL_SIDE) ** 2  # 65,536; the projector requests at most 100,000 rows
BATCH_SIZE = 256
VECTORS_FILE = "vectors.tsv"  # text: TensorBoard reads a tensor file as binary only where it is not valid UTF-8
METADATA_FILE, SPRITE_FILE, CONFIG_FILE = "metadata.tsv", "sprite.png", "projector_config.pbtxt"
CONTROL_ESCAPES = {code: repr(chr(code))[1:-1] for code in (*range(32), 127)}  # a tab in a name would start a column
Writer = Callable[[BinaryIO], object]


def select_positions(count: int, seed: int, max_images: int = MAX_IMAGES) -> np.ndarray:
    """Return ascending positions, int64: all of `count` samples, or `max_images` of them drawn with `seed`."""
    if count <= max_images:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, max_images, replace=False))


def build_projector_writers(
    features: np.ndarray, samples: Samples, images: ImageDataset, positions: np.ndarray, name: str
) -> dict[str, Writer]:
    """Return file name -> function that writes the file to a stream, for the features at `positions`.

    `features` is float32 [samples, width]; `name` is shown in TensorBoard. The config comes last: TensorBoard reads the
    other files once it exists.
    """
    columns, side = compute_sprite_layout(len(positions), images.size)
    return {
        VECTORS_FILE: lambda stream: _write_vectors(stream, features, positions),
        METADATA_FILE: lambda stream: stream.write(_format_metadata(samples, positions).encode()),
        SPRITE_FILE: lambda stream: _build_sprite(images, positions, columns, side).save(stream, "PNG"),
        CONFIG_FILE: lambda stream: stream.write(_format_config(name, side).encode()),
    }


def compute_sprite_layout(count: int, size: int) -> tuple[int, int]:
    """Return the columns of the square sprite for `count` images of `size` pixels, and the thumbnails' side in pixels.

    The projector draws a sprite with fewer rows than columns incorrectly.
    """
    columns = max(1, math.isqrt(count - 1) + 1)
    return columns, min(MAX_THUMBNAIL_SIDE, size, MAX_SPRITE_SIDE // columns)


def _write_vectors(stream: BinaryIO, features: np.ndarray, positions: Sequence[int] | np.ndarray) -> None:
    for position in positions:  # nine digits represent every float32 exactly
        stream.write(("\t".join(f"{value:.9g}" for value in features[position].tolist()) + "\n").encode())


def _format_metadata(samples: Samples, positions: np.ndarray) -> str:
    shown_samples = [samples.samples[position] for position in positions]
    rows = [(samples.classes[sample.label], sample.split, escape_path(sample.path)) for sample in shown_samples]
    cells = [[cell.translate(CONTROL_ESCAPES) for cell in row] for row in [("class", "split", "path"), *rows]]
    return "".join("\t".join(row) + "\n" for row in cells)


def _build_sprite(images: ImageDataset, positions: np.ndarray, columns: int, side: int) -> Image.Image:
    sprite = Image.new("RGB", (columns * side, columns * side), "white")
    for start in range(0, len(positions), BATCH_SIZE):
        pixels = evaluation_pixels(images, positions[start : start + BATCH_SIZE].tolist())
        for index, image_pixels in enumerate(pixels, start):
            row, column = divmod(index, columns)
            thumbnail = Image.fromarray(image_pixels).resize((side, side), Image.Resampling.BOX, reducing_gap=2)
            sprite.paste(thumbnail, (column * side, row * side))
    return sprite


def _format_config(name: str, side: int) -> str:
    from google.protobuf.text_format import MessageToString
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    config = ProjectorConfig()
    embedding = config.embeddings.add(tensor_name=name, tensor_path=VECTORS_FILE, metadata_path=METADATA_FILE)
    embedding.sprite.image_path = SPRITE_FILE
    embedding.sprite.single_image_dim.extend([side, side])
    text: str = MessageToString(config)
    return text
