"""Compute the features of a whole data set without training: for probes, exports, maps and the Python interface."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from thaw.config.errors import Problem, UserError, find_closest_name, format_names
from thaw.config.schema import Recipe
from thaw.data.batches import ImageDataset
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples
from thaw.features.views import build_plain_views
from thaw.models.network import Network, StageFacts
from thaw.system.data_frames import build_frame
from thaw.system.reporter import SILENT, Reporter
from thaw.training.setup import Components, build_components


@dataclass(frozen=True)
class Extraction:
    """The features of a data set, and what computed them.

    Attributes:
        samples: the table of the images.
        images: their pixels.
        network: the backbone with its head.
        preprocessing: how images are cropped, resized and normalized.
        stages: the stages of the backbone.
        stage: the last stage that was computed.
        run_entries: what `run.json` says about data and weights.
        values: float32 [samples, ...], the output of `stage` for each sample as evaluation sees it; vectors after the
            last stage, which is pooled.
        seconds: time spent on computing; 0 if the features were in the cache.
    """

    samples: Samples
    images: ImageDataset
    network: Network
    preprocessing: Preprocessing
    stages: list[StageFacts]
    stage: str
    run_entries: dict[str, Any]
    values: np.ndarray
    seconds: float

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
        return [sample.path for sample in self.samples.samples]

    @property
    def splits(self) -> list[str]:
        """The split of each image: train, val or test."""
        return [sample.split for sample in self.samples.samples]

    def to_frame(self) -> Any:
        """Return one row per image: path, label, class, split, and its features as an array. A pandas data frame if
        pandas is installed, otherwise a list of dicts."""
        columns = zip(self.paths, self.labels.tolist(), self.splits, self.values, strict=True)
        rows = [
            {"path": path, "label": label, "class": self.classes[label], "split": split, "features": features}
            for path, label, split, features in columns
        ]
        return build_frame(rows, parse_numbers=False)

    def __repr__(self) -> str:
        shape = " x ".join(f"{size:,}" for size in self.values.shape)
        return f"Extraction({shape} features after {self.stage}, {len(self.classes)} classes)"


def extract_features(recipe: Recipe, stage: str | None = None, reporter: Reporter = SILENT) -> Extraction:
    """Return the features after `stage`, by default the last, from the feature cache or computed and left there.

    With feature_cache=off they are computed and not kept.

    Raises:
        UserError: if there is no such stage, or data, weights or hardware are not as the recipe needs them.
    """
    components = build_components(recipe)
    depth = _resolve_depth(components, stage)
    is_cache_off = recipe.feature_cache.mode == "off"
    with tempfile.TemporaryDirectory() if is_cache_off else nullcontext() as temporary_folder:
        cache = components.build_feature_cache(build_plain_views(components.samples), reporter=reporter)
        cache = replace(cache, root=Path(temporary_folder)) if temporary_folder else cache
        result = cache.get_or_compute(components.network, cache.compute_keys(components.network, [depth]))
        features = result.features.get_evaluation_features(np.arange(len(components.samples.samples)))
        values = features.float().cpu().numpy()
    return Extraction(
        components.samples,
        components.images,
        components.network,
        components.preprocessing,
        [stage_cost.facts for stage_cost in components.stages],
        list(components.network.stages)[depth - 1],
        components.build_run_entries(),
        values,
        result.seconds,
    )


def _resolve_depth(components: Components, stage: str | None) -> int:
    stage_names = list(components.network.stages)
    if stage is None:
        return len(stage_names)
    if stage not in stage_names:
        nearest_stage = find_closest_name(stage, stage_names)
        problem = Problem(
            f"--stage {stage}",
            f"no stage of {components.recipe.backbone.name}",
            format_names(stage_names),
            f"--stage {nearest_stage}" if nearest_stage else "",
        )
        raise UserError("no such stage.", [problem])
    return stage_names.index(stage) + 1
