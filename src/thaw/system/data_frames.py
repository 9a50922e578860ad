"""Tables for people who use thaw from Python: pandas data frames if pandas is installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any


def build_frame(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return `rows` as a pandas data frame, or as a list of dicts if pandas is not installed. Text that is a number
    becomes one; empty text becomes None."""
    values = [{key: _parse_number(value) for key, value in row.items()} for row in rows]
    if importlib.util.find_spec("pandas") is None:
        return values
    import pandas

    return pandas.DataFrame(values)


def _parse_number(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value == "":
        return None
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return value
