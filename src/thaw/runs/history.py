"""`history.csv` read back, without what it takes to train."""

from __future__ import annotations

import csv
from pathlib import Path


def read_history(file: Path) -> list[dict[str, str]]:
    """The rows of a `history.csv`; none where there is no file yet."""
    if not file.exists():
        return []
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def selection_score(accuracy: float, loss: float) -> float:
    """Higher is better, for a validation accuracy in 0..1 and a validation loss. Of those with the same accuracy,
    common with few validation images, the one with the lower loss is better; it cannot outweigh one image of 10
    million."""
    return accuracy - 1e-9 * min(loss, 100.0)
