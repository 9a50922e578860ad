"""`report.html` of a run directory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thaw.analysis.looks import Subject
from thaw.analysis.picked import as_they_are
from thaw.data.batches import Images
from thaw.data.preprocessing import Preprocessing
from thaw.data.samples import Samples
from thaw.network.cost import StageCost
from thaw.network.network import Network
from thaw.training.files import write_text
from thaw.training.run import Run
from thaw.training.run_report import run_page
from thaw.training.sharding import is_sharded


def write_page(
    run: Run,
    network: Network,
    samples: Samples,
    images: Images,
    preprocessing: Preprocessing,
    stages: Sequence[StageCost],
) -> None:
    """Of what lies in the run directory, and of `network` with the weights that are kept, on the CPU."""
    positions = {samples.samples[position].path: int(position) for position in samples.of("test")}

    def pixels(paths: Sequence[str]) -> np.ndarray:
        return as_they_are(images, [positions[path] for path in paths])

    unseen = f"Each process held a piece of the weights: thaw report {run.directory} draws it." * is_sharded(network)
    subject = Subject(network.eval(), preprocessing, samples.classes, stages, pixels, unseen)
    write_text(run.directory / "report.html", run_page(run.directory, run.recipe, subject))
