"""Write the files of an evaluation, which have the formats of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from thaw.runs.run import Run

if TYPE_CHECKING:
    from torch import Tensor

    from thaw.data.samples import Samples


def write_evaluation(
    directory: Path, metrics: dict[str, Any], samples: Samples, logits: Tensor, positions: Tensor
) -> None:
    """Write the metrics and predictions of an evaluation into `directory`, in the format of a run. `logits`
    [n, classes] are those of the samples at `positions` [n]."""
    directory.mkdir(parents=True, exist_ok=True)
    evaluation = Run(directory)
    evaluation.write_metrics(metrics)
    evaluation.write_predictions(samples, logits, positions)
