"""The HTML of a comparison: a page in one file, and a table for notebooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from thaw.comparison.configurations import Configuration
from thaw.comparison.figures import get_color
from thaw.comparison.metric_table import build_metric_table
from thaw.comparison.results import ComparisonResults
from thaw.comparison.tables import build_cells, build_headings, format_accuracy
from thaw.visualization.reports.html import encode_data_uri, render_template

PACKAGE = "thaw.comparison"
DRAWING_WIDTH = 200  # units of the drawing of an interval
DRAWING_NOTE = "In the drawings the thick stroke is the mean, thin strokes are seeds, and the bar is the interval."


def render_comparison_page(groups: Sequence[ComparisonResults], figures: Sequence[Mapping[str, bytes]]) -> str:
    """Return the HTML page with a part for each data set. `figures` are for each the PNG files by title."""
    parts = [
        {
            **_build_table_context(group),
            "tiles": _build_tiles(group),
            "metrics": _build_metric_context(group),
            "unfinished": group.unfinished_runs,
            "figures": {title: encode_data_uri(content) for title, content in group_figures.items()},
        }
        for group, group_figures in zip(groups, figures, strict=True)
    ]
    return render_template("comparison.html", package=PACKAGE, parts=parts)


def render_comparison_table(comparison: ComparisonResults) -> str:
    """Return the table with its caveats and notes as a piece of HTML for a notebook."""
    return render_template("comparison_notebook.html", package=PACKAGE, **_build_table_context(comparison))


def _build_table_context(comparison: ComparisonResults) -> dict[str, Any]:
    headings = build_headings(comparison)
    return {
        "subject": comparison.subject,
        "verdict": comparison.verdict,
        "keys": comparison.keys,
        "headings": headings,
        "num_keys": len(comparison.keys),
        "rows": _build_rows(comparison, headings),
        "caveats": comparison.caveats,
        "notes": comparison.notes,
        "drawing_note": DRAWING_NOTE,
    }


def _build_metric_context(comparison: ComparisonResults) -> dict[str, Any] | None:
    table = build_metric_table(comparison.configurations)
    if table is None:
        return None
    rows = [
        {
            "label": configuration.label,
            "color": get_color(index),
            "is_reference": configuration.is_reference,
            "cells": list(zip(table.titles, estimates, strict=True)),
        }
        for index, (configuration, estimates) in enumerate(zip(comparison.configurations, table.rows, strict=True))
    ]
    return {"titles": table.titles, "rows": rows, "note": table.note}


def _build_tiles(comparison: ComparisonResults) -> list[tuple[str, str]]:
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


def _build_rows(comparison: ComparisonResults, headings: Sequence[str]) -> list[dict[str, Any]]:
    to_x = _build_scale(comparison.configurations)
    return [
        {
            "color": get_color(index),
            "is_reference": configuration.is_reference,
            "cells": list(zip(headings, build_cells(comparison, configuration), strict=True)),
            "low": to_x(configuration.test_accuracy.low),
            "high": to_x(configuration.test_accuracy.high),
            "mean": to_x(configuration.test_accuracy.mean),
            "seeds": [to_x(value) for value in configuration.get_scores("test", "accuracy")],
        }
        for index, configuration in enumerate(comparison.configurations)
    ]


def _build_scale(configurations: Sequence[Configuration]) -> Callable[[float], float]:
    """Return a function from an accuracy to an x coordinate of the drawing, the same one for all rows."""
    low = min(configuration.test_accuracy.low for configuration in configurations)
    width = max(max(configuration.test_accuracy.high for configuration in configurations) - low, 1e-6)
    return lambda accuracy: round(5 + (DRAWING_WIDTH - 10) * (accuracy - low) / width, 1)
