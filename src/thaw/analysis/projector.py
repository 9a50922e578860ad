"""Features for TensorBoard's projector: vectors, what each is, and a sheet of thumbnails."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import BinaryIO

import numpy as np
from PIL import Image

from thaw.analysis.picked import as_they_are
from thaw.data.batches import Images
from thaw.data.problems import printable
from thaw.data.samples import Samples

SHEET = 8192  # pixels; the projector refuses a sprite with a longer side
SMALLEST, LARGEST = 32, 64  # pixels of a thumbnail's side: what can still be told apart, and what the view shows
MOST_IMAGES = (SHEET // SMALLEST) ** 2  # 65,536, below the 100,000 rows that the projector asks for
AT_ONCE = 256
# TensorBoard takes a tensor's file for binary only where it is no UTF-8, so it is written as text.
VECTORS, ROWS, SPRITE, CONFIG = "vectors.tsv", "metadata.tsv", "sprite.png", "projector_config.pbtxt"
CONTROL = {code: repr(chr(code))[1:-1] for code in (*range(32), 127)}  # a tab in a name would begin a column
Writer = Callable[[BinaryIO], object]


def shown_positions(count: int, seed: int, most: int = MOST_IMAGES) -> np.ndarray:
    """int64, ascending: all of `count` samples, or `most` of them drawn by `seed`."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, most, replace=False))


def projector_writers(
    features: np.ndarray, samples: Samples, images: Images, positions: np.ndarray, name: str
) -> dict[str, Writer]:
    """Names of files -> what puts their bytes into a stream, the config that makes TensorBoard see them last.

    `features` is float32 [samples, width]; shown are those at `positions`, under `name`.
    """
    columns, side = sheet_of(len(positions), images.size)
    return {
        VECTORS: lambda stream: _write_vectors(stream, features, positions),
        ROWS: lambda stream: stream.write(_rows(samples, positions).encode()),
        SPRITE: lambda stream: _sprite(images, positions, columns, side).save(stream, "PNG"),
        CONFIG: lambda stream: stream.write(_config(name, side).encode()),
    }


def sheet_of(count: int, size: int) -> tuple[int, int]:
    """Columns of the square sheet for `count` thumbnails of images of `size` pixels, and the side of each in pixels.
    The projector draws wrongly where a sheet has fewer rows than columns."""
    columns = max(1, math.isqrt(count - 1) + 1)
    return columns, min(LARGEST, size, SHEET // columns)


def _write_vectors(stream: BinaryIO, features: np.ndarray, positions: Sequence[int] | np.ndarray) -> None:
    for position in positions:  # nine digits give back every float32
        stream.write(("\t".join(f"{value:.9g}" for value in features[position].tolist()) + "\n").encode())


def _rows(samples: Samples, positions: np.ndarray) -> str:
    shown = [samples.samples[position] for position in positions]
    rows = [(samples.classes[one.label], one.split, printable(one.path)) for one in shown]
    cells = [[cell.translate(CONTROL) for cell in row] for row in [("class", "split", "path"), *rows]]
    return "".join("\t".join(row) + "\n" for row in cells)


def _sprite(images: Images, positions: np.ndarray, columns: int, side: int) -> Image.Image:
    sheet = Image.new("RGB", (columns * side, columns * side), "white")
    for start in range(0, len(positions), AT_ONCE):
        pixels = as_they_are(images, positions[start : start + AT_ONCE].tolist())
        for number, one in enumerate(pixels, start):
            row, column = divmod(number, columns)
            thumbnail = Image.fromarray(one).resize((side, side), Image.Resampling.BOX, reducing_gap=2)
            sheet.paste(thumbnail, (column * side, row * side))
    return sheet


def _config(name: str, side: int) -> str:
    from google.protobuf.text_format import MessageToString
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    config = ProjectorConfig()
    shown = config.embeddings.add(tensor_name=name, tensor_path=VECTORS, metadata_path=ROWS)
    shown.sprite.image_path = SPRITE
    shown.sprite.single_image_dim.extend([side, side])
    text: str = MessageToString(config)
    return text
