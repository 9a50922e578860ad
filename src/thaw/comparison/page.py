"""A comparison as a page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thaw.analysis.page import data_uri, rendered
from thaw.comparison.compared import Comparison
from thaw.comparison.configurations import Configuration
from thaw.comparison.figures import colour_of
from thaw.comparison.tables import accuracy_text, cells, headings

SCALE = 200  # units of an interval's drawing


def page_text(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    """HTML; `pictures` are PNG by title."""
    names = headings(comparison)
    numeric_from = len(comparison.keys)
    values = {
        "subject": comparison.subject,
        "keys": comparison.keys,
        "tiles": _tiles(comparison),
        "headings": names,
        "numeric_from": numeric_from,
        "rows": _rows(comparison, names),
        "caveats": comparison.caveats,
        "notes": comparison.notes,
        "unfinished": comparison.unfinished,
        "pictures": {title: data_uri(content) for title, content in pictures.items()},
    }
    return rendered("comparison.html", package="thaw.comparison", **values)


def _tiles(comparison: Comparison) -> list[tuple[str, str]]:
    found = comparison.configurations
    seeds = {seed for one in found for seed in one.seeds}
    counts = {int(run.score("test", "count")) for one in found for run in one.runs}
    images = f"{min(counts):,}" if len(counts) == 1 else f"{min(counts):,} to {max(counts):,}"
    return [
        (str(len(found)), "configuration" if len(found) == 1 else "configurations"),
        (str(sum(len(one.runs) for one in found)), "runs"),
        (str(len(seeds)), "seed" if len(seeds) == 1 else "seeds"),
        (images, "test images"),
        (accuracy_text(comparison.reference), f"test accuracy of the reference, {comparison.reference.label}"),
    ]


def _rows(comparison: Comparison, names: Sequence[str]) -> list[dict[str, Any]]:
    place_of = _scale(comparison.configurations)
    return [
        {
            "colour": colour_of(place),
            "is_reference": one.is_reference,
            "cells": list(zip(names, cells(comparison, one), strict=True)),
            "low": place_of(one.accuracy.low),
            "high": place_of(one.accuracy.high),
            "mean": place_of(one.accuracy.mean),
            "seeds": [place_of(value) for value in one.scores("test", "accuracy")],
        }
        for place, one in enumerate(comparison.configurations)
    ]


def _scale(configurations: Sequence[Configuration]) -> Any:
    """A function from an accuracy to a place in the drawing that all rows share."""
    low = min(one.accuracy.low for one in configurations)
    width = max(max(one.accuracy.high for one in configurations) - low, 1e-6)
    return lambda accuracy: round(5 + (SCALE - 10) * (accuracy - low) / width, 1)
