"""Extract the features of a whole data set, for probes and embeddings, and write them as files."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.schema import Recipe
from thaw.data.batches import ImageDataset
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples
from thaw.features.export import Export, build_writers
from thaw.features.views import build_plain_views
from thaw.models.network import Network, StageFacts
from thaw.system.files import write_atomically
from thaw.system.reporter import SILENT, Reporter
from thaw.system.tables import build_data_frame
from thaw.training.setup import Components, build_components


@dataclass(frozen=True)
class Extraction:
    """The features of a data set, and the components that computed them.

    `values` is float32 [samples, ...], the output of `stage` for each sample, without augmentation. After the last
    stage it is pooled to the vectors that the head takes. `seconds` is the time spent on computing, 0 if the features
    were in the cache.
    """

    components: Components
    stage: str
    values: np.ndarray
    seconds: float

    @property
    def samples(self) -> Samples:
        """The table of samples, one for each row of `values`."""
        return self.components.data.samples

    @property
    def images(self) -> ImageDataset:
        """The images of the samples."""
        return self.components.data.images

    @property
    def network(self) -> Network:
        """The network that computed the features."""
        return self.components.model.network

    @property
    def preprocessing(self) -> Preprocessing:
        """How images are resized, cropped and normalized."""
        return self.components.model.preprocessing

    @property
    def stages(self) -> list[StageFacts]:
        """Name, output shape and parameters of each stage and the head."""
        return self.components.model.facts

    @property
    def run_entries(self) -> dict[str, Any]:
        """The entries of `run.json` about the data and the pretrained weights."""
        return self.components.build_run_entries()

    @property
    def labels(self) -> np.ndarray:
        """Indices into `classes`, int64 [samples]."""
        return self.samples.get_labels()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return self.samples.classes

    @property
    def paths(self) -> list[str]:
        """The path of each image, relative to the root of the data set."""
        return list(self.samples.samples.paths)

    @property
    def splits(self) -> list[str]:
        """The split of each image: train, val or test."""
        return self.samples.samples.list_splits()

    def to_frame(self) -> Any:
        """Return one row per image: path, label, class, split, and its features as an array. A pandas data frame if
        pandas is installed, otherwise a list of dicts."""
        columns = zip(self.paths, self.labels.tolist(), self.splits, self.values, strict=True)
        rows = [
            {"path": path, "label": label, "class": self.classes[label], "split": split, "features": features}
            for path, label, split, features in columns
        ]
        return build_data_frame(rows)

    def __repr__(self) -> str:
        shape = " x ".join(f"{size:,}" for size in self.values.shape)
        return f"Extraction({shape} features after {self.stage}, {len(self.classes)} classes)"


def extract_features(recipe: Recipe, stage: str | None = None, reporter: Reporter = SILENT) -> Extraction:
    """Extract the features after `stage`, by default the last, with the feature cache unless it is off.

    Raises:
        UserError: if there is no such stage, or data, weights or hardware are not as the recipe needs them.
    """
    components = build_components(recipe, reporter)
    network, samples = components.model.network, components.data.samples
    components.choose_precision(len(network.stages), reporter)
    depth = _resolve_depth(components, stage)
    is_cache_off = recipe.feature_cache.mode == "off"
    with tempfile.TemporaryDirectory() if is_cache_off else nullcontext() as temporary_folder:
        cache = components.build_feature_cache(build_plain_views(samples), reporter=reporter)
        cache = replace(cache, root=Path(temporary_folder)) if temporary_folder else cache
        cache_result = cache.get_or_compute(network, cache.compute_keys(network, [depth]))
        features = cache_result.features.get_evaluation_features(np.arange(len(samples.samples)))
        values = features.float().cpu().numpy()
    return Extraction(components, list(network.stages)[depth - 1], values, cache_result.seconds)


def _resolve_depth(components: Components, stage: str | None) -> int:
    stage_names = list(components.model.network.stages)
    if stage is None:
        return len(stage_names)
    if stage not in stage_names:
        closest_stage = find_closest_name(stage, stage_names)
        got, fix = f"no stage of {components.recipe.backbone.name}", f"--stage {closest_stage}" if closest_stage else ""
        raise UserError("no such stage.", [Problem(f"--stage {stage}", got, format_names(stage_names), fix)])
    return stage_names.index(stage) + 1


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
    from thaw.visualization.plots.projector import CONFIG_FILE, build_projector_writers, select_positions

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
    from thaw.visualization.plots.embedding import compute_embedding, plot_embedding  # imports scikit-learn
    from thaw.visualization.plots.encode import encode_png

    embeddings = compute_embedding(vectors, seed)
    num_shown = len(embeddings.positions)
    image_count = f"{num_shown:,} of {len(vectors):,} images" if num_shown < len(vectors) else f"{num_shown:,} images"
    figure = plot_embedding(embeddings, extraction.samples, f"{title}: {image_count}")
    content = encode_png(figure, dpi=110)
    _write(file, lambda stream: stream.write(content))
    return num_shown


def _write(file: Path, write: Callable[[BinaryIO], object]) -> None:
    try:
        write_atomically(file, write)
    except OSError as error:
        raise _build_write_error(file, error) from error


def _build_write_error(path: Path, error: OSError) -> UserError:
    problem = Problem(str(path), error.strerror or str(error), fix="free some space, or choose another place")
    return UserError("a file cannot be written.", [problem])
