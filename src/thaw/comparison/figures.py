"""The figures of a comparison. A configuration has one colour in all of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator, StrMethodFormatter

from thaw.comparison.configurations import Configuration
from thaw.comparison.records import RunResults
from thaw.visualization.plots.encode import encode_png
from thaw.visualization.plots.style import FIGURE_WIDTH, PALETTE, TEXT_COLOR, style_axes
from thaw.visualization.plots.text import format_label

COLORS, FALLBACK_COLOR = PALETTE[:-1], PALETTE[-1]  # in the order of the table
MAX_LABEL_LENGTH = 44
MAX_CLASSES, MAX_SHOWN_CONFIGURATIONS = 20, 10  # rows and columns of the class figure
MIN_LOG_SCALE_RATIO = 20  # largest to smallest value; from this ratio on an axis is logarithmic


def get_color(index: int) -> str:
    """Return the color of row `index` of the table. Rows after the last color share one."""
    return COLORS[index] if index < len(COLORS) else FALLBACK_COLOR


def draw_figures(configurations: Sequence[Configuration]) -> dict[str, bytes]:
    """Return PNG files by name: accuracy, loss, time and classes, without those that have nothing to show."""
    figures_by_name = {
        "accuracy": _draw_curves(configurations, "accuracy"),
        "loss": _draw_curves(configurations, "loss"),
        "time": _draw_accuracy_against_time(configurations),
        "classes": _draw_class_differences(configurations),
    }
    return {name: encode_png(figure) for name, figure in figures_by_name.items() if figure is not None}


def _draw_curves(configurations: Sequence[Configuration], metric: str) -> Figure | None:
    """Draw a validation metric by epoch, one line per configuration: the mean over seeds in a band from the lowest to
    the highest seed, up to the last epoch that all its seeds reached."""
    indexed_curves = [
        (index, stack_curves(configuration.runs, f"val_{metric}")) for index, configuration in enumerate(configurations)
    ]
    drawable_curves = [(index, curves) for index, curves in indexed_curves if curves.size]
    if not drawable_curves:
        return None
    figure, axes = _create_figure(len(drawable_curves))
    for index, curves in reversed(drawable_curves):  # the best is drawn last, on top
        epochs = np.arange(1, curves.shape[1] + 1)
        color = get_color(index)
        axes.plot(epochs, curves.mean(0), color=color, linewidth=1.8, marker="o", markersize=3)
        axes.fill_between(epochs, curves.min(0), curves.max(0), color=color, alpha=0.15, linewidth=0)
    axes.set_ylabel(f"validation {metric}", color=TEXT_COLOR, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if metric == "loss" and _is_wide(curves for _, curves in drawable_curves):
        axes.set_yscale("log")
        _set_plain_log_ticks(axes.yaxis)
    style_axes(axes, "epoch")
    _draw_legend(figure, configurations, [index for index, _ in drawable_curves])
    return figure


def stack_curves(runs: Sequence[RunResults], column: str) -> np.ndarray:
    """Return a column of the histories as float64 [seeds, epochs]; [seeds, 0] if a run lacks it, as probes and runs
    without validation images do."""
    curves = [[float(row[column]) for row in run.history if row.get(column)] for run in runs]
    num_epochs = min(map(len, curves))
    return np.array([curve[:num_epochs] for curve in curves]).reshape(len(runs), num_epochs)


def _is_wide(curves: Iterator[np.ndarray]) -> bool:
    ranges = [(curve.min(), np.quantile(curve, 0.95)) for curve in curves]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    return bool(low > 0 and high > MIN_LOG_SCALE_RATIO * low)


def _draw_accuracy_against_time(configurations: Sequence[Configuration]) -> Figure:
    """Draw the mean test accuracy with its interval against the median time with its range over seeds."""
    figure, axes = _create_figure(len(configurations))
    for index, configuration in reversed(list(enumerate(configurations))):
        seconds, estimate = configuration.get_scores("timing", "wall_s"), configuration.test_accuracy
        median_s = configuration.compute_median("wall_s")
        xerr = [[median_s - min(seconds)], [max(seconds) - median_s]]
        yerr = [[estimate.mean - estimate.low], [estimate.high - estimate.mean]]
        style: Any = {"color": get_color(index), "elinewidth": 1.2, "capsize": 2, "markeredgecolor": "white"}
        axes.errorbar(
            median_s, estimate.mean, yerr, xerr, "o", markersize=8 if configuration.is_reference else 6.5, **style
        )
    times = [value for configuration in configurations for value in configuration.get_scores("timing", "wall_s")]
    if max(times) > MIN_LOG_SCALE_RATIO * min(times):
        axes.set_xscale("log")
        _set_plain_log_ticks(axes.xaxis)
    else:
        axes.set_xlim(left=0)
    axes.set_ylabel("test accuracy", color=TEXT_COLOR, fontsize=9)
    style_axes(axes, "seconds a run")
    _draw_legend(figure, configurations, list(range(len(configurations))))
    return figure


def _draw_class_differences(configurations: Sequence[Configuration]) -> Figure | None:
    """Draw the difference of each class's accuracy to the reference in percentage points: a row per class, the most
    different classes first, and a column per configuration."""
    reference = next(configuration for configuration in configurations if configuration.is_reference)
    other_configurations = [
        configuration
        for configuration in configurations
        if not configuration.is_reference and set(configuration.class_accuracies) == set(reference.class_accuracies)
    ][:MAX_SHOWN_CONFIGURATIONS]
    if not other_configurations:
        return None
    other_accuracies = [configuration.class_accuracies for configuration in other_configurations]
    class_names = select_most_different_classes(reference.class_accuracies, other_accuracies)
    differences = np.array(
        [
            [100 * (accuracies[name] - reference.class_accuracies[name]) for accuracies in other_accuracies]
            for name in class_names
        ]
    )
    figure = Figure(figsize=(FIGURE_WIDTH, 1.7 + 0.24 * len(class_names)), layout="constrained")
    axes = figure.subplots()
    _draw_heatmap(axes, differences)
    labels = [format_label(configuration.short_label, 26) for configuration in other_configurations]
    _label_heatmap(axes, [format_label(name, 18) for name in class_names], labels)
    return figure


def _draw_heatmap(axes: Axes, differences: np.ndarray) -> None:
    limit = max(5.0, float(np.abs(differences).max()))
    axes.imshow(differences, cmap="RdBu", norm=TwoSlopeNorm(0, -limit, limit), aspect="auto")
    has_room_for_decimals = differences.shape[1] <= 6
    for (row, column), value in np.ndenumerate(differences):
        text_color = "white" if abs(value) > 0.6 * limit else TEXT_COLOR
        text = "0" if abs(value) < 0.05 else f"{value:+.1f}" if has_room_for_decimals else f"{value:+.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=text_color)


def _label_heatmap(axes: Axes, row_labels: Sequence[str], column_labels: Sequence[str]) -> None:
    rotation: Any = {"rotation": 35, "ha": "left", "rotation_mode": "anchor"} if len(column_labels) > 2 else {}
    axes.set_yticks(range(len(row_labels)), row_labels)
    axes.set_xticks(range(len(column_labels)), column_labels, **rotation)
    axes.tick_params(colors=TEXT_COLOR, labelsize=8, length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


def select_most_different_classes(
    reference: Mapping[str, float], other_accuracies: Sequence[Mapping[str, float]]
) -> list[str]:
    """Return at most MAX_CLASSES class names, the largest difference of any configuration to the reference first."""
    max_differences = {
        name: max(abs(accuracies[name] - value) for accuracies in other_accuracies) for name, value in reference.items()
    }
    return sorted(max_differences, key=lambda name: -max_differences[name])[:MAX_CLASSES]


def _create_figure(num_legend_entries: int) -> tuple[Figure, Axes]:
    """Create axes of a fixed height with room for the legend below them."""
    figure = Figure(figsize=(FIGURE_WIDTH, 3.4 + 0.2 * min(num_legend_entries, len(COLORS) + 1)), layout="constrained")
    return figure, figure.subplots()


def _draw_legend(figure: Figure, configurations: Sequence[Configuration], indices: Sequence[int]) -> None:
    axes = figure.axes[0]
    for index in [index for index in indices if index < len(COLORS)]:
        configuration = configurations[index]
        label = format_label(configuration.label, MAX_LABEL_LENGTH) + (
            " (reference)" if configuration.is_reference else ""
        )
        axes.plot([], [], "o-", color=get_color(index), label=label, markersize=5)
    if num_others := sum(index >= len(COLORS) for index in indices):
        axes.plot([], [], "o-", color=FALLBACK_COLOR, label=f"{num_others} others", markersize=5)
    figure.legend(loc="outside lower left", frameon=False, fontsize=8, labelcolor=TEXT_COLOR, labelspacing=0.3)


def _set_plain_log_ticks(axis: Axis) -> None:
    """Label a logarithmic axis at 1, 2, 5, 10, ..."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
