"""The features of a whole data set, for what is no training of epochs: probes, exports, maps."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from thaw.config.faults import Fault, UserFault, listing, nearest
from thaw.config.schema import Recipe
from thaw.data.batches import Images
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples
from thaw.features.views import plain_views
from thaw.network.network import Network, StageFacts
from thaw.training.materials import Materials, gathered


@dataclass(frozen=True)
class Extracted:
    """`values` is float32 [samples, ...]: what the network gives up to `stage` for each sample, as evaluation sees it;
    after the last stage the pooled vectors that the head takes. `recorded` is what `run.json` says of data and weights.
    `seconds` were spent on computing it, 0 where it was found."""

    samples: Samples
    images: Images
    network: Network
    preprocessing: Preprocessing
    stages: list[StageFacts]
    stage: str
    recorded: dict[str, Any]
    values: np.ndarray
    seconds: float


def extracted(recipe: Recipe, stage: str | None = None) -> Extracted:
    """The features after `stage`, by default the last, found in or left to the feature cache; with cache=off neither.

    Raises:
        UserFault: where there is no such stage, or data, weights or hardware are not as the recipe needs them.
    """
    made = gathered(recipe)
    depth = _depth(made, stage)
    off = recipe.cache.mode == "off"
    with tempfile.TemporaryDirectory() if off else nullcontext() as aside:
        cache = made.feature_cache(plain_views(made.samples))
        cache = replace(cache, root=Path(aside)) if aside else cache
        found = cache.find(made.network, cache.keys(made.network, [depth]))
        values = found.features.of(np.arange(len(made.samples.samples))).float().cpu().numpy()
    facts, name = [one.facts for one in made.stages], list(made.network.stages)[depth - 1]
    return Extracted(
        made.samples,
        made.images,
        made.network,
        made.preprocessing,
        facts,
        name,
        made.recorded(),
        values,
        found.seconds,
    )


def _depth(made: Materials, stage: str | None) -> int:
    stages = list(made.network.stages)
    if stage is None:
        return len(stages)
    if stage not in stages:
        near = nearest(stage, stages)
        fault = Fault(
            f"--stage {stage}",
            f"no stage of {made.recipe.backbone.name}",
            listing(stages),
            f"--stage {near}" if near else "",
        )
        raise UserFault("no such stage.", [fault])
    return stages.index(stage) + 1
