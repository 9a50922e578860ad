"""The rows of `history.csv`, one an epoch, and the score by which epochs and trials are chosen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thaw.system.csv_files import format_rows


def format_history(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return `rows` as CSV with the columns of the last row."""
    columns = list(rows[-1])
    return format_rows([columns, *([row.get(column, "") for column in columns] for row in rows)])


def selection_score(accuracy: float, loss: float) -> float:
    """Return the score by which the best epoch of a run and the best trial of a search are chosen; higher is better.

    `accuracy` is the validation accuracy in 0..1, `loss` the validation loss. Equal accuracies are common with few
    validation images; among them the lower loss wins. The loss cannot outweigh one image in 10 million.
    """
    return accuracy - 1e-9 * min(loss, 100.0)
