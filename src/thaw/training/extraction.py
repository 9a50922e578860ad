"""The features of a whole data set, for what is no training of epochs: probes, exports, maps."""

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
from thaw.training.setup import Components, build_components


@dataclass(frozen=True)
class ExtractedFeatures:
    """`values` is float32 [samples, ...]: what the network gives up to `stage` for each sample, as evaluation sees it;
    after the last stage the pooled vectors that the head takes. `recorded` is what `run.json` says of data and weights.
    `seconds` were spent on computing it, 0 where it was found."""

    samples: Samples
    images: ImageDataset
    network: Network
    preprocessing: Preprocessing
    stages: list[StageFacts]
    stage: str
    run_entries: dict[str, Any]
    values: np.ndarray
    seconds: float


def extract_features(recipe: Recipe, stage: str | None = None) -> ExtractedFeatures:
    """The features after `stage`, by default the last, found in or left to the feature cache; with feature_cache=off neither.

    Raises:
        UserFault: where there is no such stage, or data, weights or hardware are not as the recipe needs them.
    """
    components = build_components(recipe)
    depth = _resolve_depth(components, stage)
    is_cache_off = recipe.feature_cache.mode == "off"
    with tempfile.TemporaryDirectory() if is_cache_off else nullcontext() as temporary_folder:
        cache = components.build_feature_cache(build_plain_views(components.samples))
        cache = replace(cache, root=Path(temporary_folder)) if temporary_folder else cache
        cache_result = cache.get_or_compute(components.network, cache.compute_keys(components.network, [depth]))
        values = (
            cache_result.features.get_evaluation_features(np.arange(len(components.samples.samples)))
            .float()
            .cpu()
            .numpy()
        )
    stage_facts, stage_name = (
        [stage_cost.facts for stage_cost in components.stages],
        list(components.network.stages)[depth - 1],
    )
    return ExtractedFeatures(
        components.samples,
        components.images,
        components.network,
        components.preprocessing,
        stage_facts,
        stage_name,
        components.build_run_entries(),
        values,
        cache_result.seconds,
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
