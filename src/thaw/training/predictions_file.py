"""`predictions.csv`, apart from what it takes to train: evaluating writes one too."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from torch import Tensor

from thaw.data.samples import Samples
from thaw.training.files import write_text


def write_predictions(file: Path, samples: Samples, logits: Tensor, positions: Tensor) -> None:
    """Path, label, prediction and its probability for each of logits [n, classes], of samples at `positions` [n]."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["path", "label", "prediction", "probability"])
    probabilities, predictions = logits.softmax(1).max(1)
    for position, prediction, probability in zip(
        positions.tolist(), predictions.tolist(), probabilities.tolist(), strict=True
    ):
        sample = samples.samples[position]
        writer.writerow([sample.path, samples.classes[sample.label], samples.classes[prediction], f"{probability:.6f}"])
    write_text(file, buffer.getvalue())
