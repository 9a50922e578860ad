"""A comparison as a page that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thaw.comparison.comparison import Comparison
from thaw.comparison.configurations import Configuration
from thaw.comparison.figures import get_colour
from thaw.comparison.tables import build_cells, build_headings, format_accuracy
from thaw.visualization.reports.html import encode_data_uri, render_template

DRAWING_WIDTH = 200  # units of an interval's drawing


def render_comparison_page(comparison: Comparison, pictures: Mapping[str, bytes]) -> str:
    """HTML; `pictures` are PNG by title."""
    column_headings = build_headings(comparison)
    numeric_from = len(comparison.keys)
    context = {
        "subject": comparison.subject,
        "keys": comparison.keys,
        "tiles": _build_tiles(comparison),
        "headings": column_headings,
        "numeric_from": numeric_from,
        "rows": _build_rows(comparison, column_headings),
        "caveats": comparison.caveats,
        "notes": comparison.notes,
        "unfinished": comparison.unfinished_runs,
        "pictures": {title: encode_data_uri(content) for title, content in pictures.items()},
    }
    return render_template("comparison.html", package="thaw.comparison", **context)


def _build_tiles(comparison: Comparison) -> list[tuple[str, str]]:
    configurations = comparison.configurations
    seeds = {seed for configuration in configurations for seed in configuration.seeds}
    image_counts = {
        int(run.get_score("test", "count")) for configuration in configurations for run in configuration.runs
    }
    image_count_text = (
        f"{min(image_counts):,}" if len(image_counts) == 1 else f"{min(image_counts):,} to {max(image_counts):,}"
    )
    return [
        (str(len(configurations)), "configuration" if len(configurations) == 1 else "configurations"),
        (str(sum(len(configuration.runs) for configuration in configurations)), "runs"),
        (str(len(seeds)), "seed" if len(seeds) == 1 else "seeds"),
        (image_count_text, "test images"),
        (format_accuracy(comparison.reference), f"test accuracy of the reference, {comparison.reference.label}"),
    ]


def _build_rows(comparison: Comparison, column_headings: Sequence[str]) -> list[dict[str, Any]]:
    to_x = _build_scale(comparison.configurations)
    return [
        {
            "colour": get_colour(index),
            "is_reference": configuration.is_reference,
            "cells": list(zip(column_headings, build_cells(comparison, configuration), strict=True)),
            "low": to_x(configuration.test_accuracy.low),
            "high": to_x(configuration.test_accuracy.high),
            "mean": to_x(configuration.test_accuracy.mean),
            "seeds": [to_x(value) for value in configuration.get_scores("test", "accuracy")],
        }
        for index, configuration in enumerate(comparison.configurations)
    ]


def _build_scale(configurations: Sequence[Configuration]) -> Any:
    """A function from an accuracy to a place in the drawing that all rows share."""
    low = min(configuration.test_accuracy.low for configuration in configurations)
    width = max(max(configuration.test_accuracy.high for configuration in configurations) - low, 1e-6)
    return lambda accuracy: round(5 + (DRAWING_WIDTH - 10) * (accuracy - low) / width, 1)
