"""What the epochs of a run, and the trials of a search, are chosen by."""

from __future__ import annotations


def selection_score(accuracy: float, loss: float) -> float:
    """Higher is better, for a validation accuracy in 0..1 and a validation loss. Of those with the same accuracy,
    common with few validation images, the one with the lower loss is better; it cannot outweigh one image of 10
    million."""
    return accuracy - 1e-9 * min(loss, 100.0)
