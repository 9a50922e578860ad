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
