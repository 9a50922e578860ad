"""`report.html` of a run directory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thaw.analysis.looks import ExplainedModel
from thaw.analysis.picked import evaluation_pixels
from thaw.data.batches import ImageDataset
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples
from thaw.network.cost import StageCost
from thaw.network.network import Network
from thaw.training.files import write_text
from thaw.training.run import Run
from thaw.training.run_report import render_run_report
from thaw.training.sharding import is_sharded


def write_report(
    run: Run,
    network: Network,
    samples: Samples,
    images: ImageDataset,
    preprocessing: Preprocessing,
    stages: Sequence[StageCost],
) -> None:
    """Of what lies in the run directory, and of `network` with the weights that are kept, on the CPU."""
    positions = {samples.samples[position].path: int(position) for position in samples.get_positions("test")}

    def load_pixels(paths: Sequence[str]) -> np.ndarray:
        return evaluation_pixels(images, [positions[path] for path in paths])

    unavailable_reason = (
        f"Each process held a piece of the weights: thaw report {run.directory} draws it." * is_sharded(network)
    )
    model = ExplainedModel(network.eval(), preprocessing, samples.classes, stages, load_pixels, unavailable_reason)
    write_text(run.directory / "report.html", render_run_report(run.directory, run.recipe, model))
