"""Writes extracted features: as a file, for TensorBoard's projector, and as a plot in two dimensions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from thaw.config.errors import Problem, UserError
from thaw.features.export import Export, build_writers
from thaw.system.files import write_atomically
from thaw.training.extraction import Extraction
from thaw.visualization.plots.embedding import compute_embedding, plot_embedding
from thaw.visualization.plots.projector import CONFIG_FILE, build_projector_writers, select_positions


def write_features(values: np.ndarray, extraction: Extraction, backbone: str, file: Path) -> None:
    """Write `values` float32 [samples, ...] to `file` in the format of its suffix: .npz, .npy with .csv, or .parquet.

    Raises:
        UserError: if the file cannot be written.
    """
    export = Export(values, extraction.samples, backbone, extraction.stage)
    for path, write in build_writers(export, file).items():
        _write(path, write)


def write_projector(vectors: np.ndarray, extraction: Extraction, title: str, folder: Path, seed: int) -> int:
    """Write `vectors` float32 [samples, width] and thumbnails for TensorBoard's projector to `folder`. Returns how many
    images it shows: if there are too many, those that `seed` draws.

    Raises:
        UserError: if a file cannot be written.
    """
    positions = select_positions(len(vectors), seed)
    writers = build_projector_writers(vectors, extraction.samples, extraction.images, positions, title)
    try:
        folder.mkdir(exist_ok=True)
        (folder / CONFIG_FILE).unlink(missing_ok=True)  # an earlier one would describe files that are half replaced
    except OSError as error:
        raise _build_write_error(folder, error) from error
    for file, write in writers.items():
        _write(folder / file, write)
    return len(positions)


def save_embedding_plot(vectors: np.ndarray, extraction: Extraction, title: str, file: Path, seed: int) -> int:
    """Plot `vectors` float32 [samples, width] in two dimensions, by PCA and t-SNE, as a PNG file. Returns how many
    images it shows: if there are too many, those that `seed` draws.

    Raises:
        UserError: if the file cannot be written.
    """
    embeddings = compute_embedding(vectors, seed)
    num_shown = len(embeddings.positions)
    image_count = f"{num_shown:,} of {len(vectors):,} images" if num_shown < len(vectors) else f"{num_shown:,} images"
    figure = plot_embedding(embeddings, extraction.samples, f"{title}: {image_count}")
    _write(file, lambda stream: figure.savefig(stream, format="png", dpi=110))
    return num_shown


def _write(file: Path, write: Callable[[BinaryIO], object]) -> None:
    try:
        write_atomically(file, write)
    except OSError as error:
        raise _build_write_error(file, error) from error


def _build_write_error(path: Path, error: OSError) -> UserError:
    problem = Problem(str(path), error.strerror or str(error), fix="free some space, or choose another place")
    return UserError("a file cannot be written.", [problem])
