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
from thaw.comparison.records import Record
from thaw.visualization.plots.dataset import FIGURE_WIDTH, TEXT_COLOR, shorten_name, style_axes
from thaw.visualization.plots.encode import encode_png

# Of the configurations in the table's order; the reds and greens differ in lightness too.
COLOURS = ("#2f6fad", "#e58a2e", "#2c8a57", "#b8336a", "#8067b7", "#8c6d31", "#1aa3b5", "#c9a227", "#d8573c", "#44525f")
FALLBACK_COLOUR = "#b9c3cb"
MAX_LABEL_LENGTH = 44
MAX_CLASSES, MAX_COLUMNS = 20, 10
MIN_LOG_SCALE_RATIO = 20  # times the smallest: seconds this far apart need a logarithmic axis


def get_colour(index: int) -> str:
    """Of the configuration at `place` in the table; those past the colours share one."""
    return COLOURS[index] if index < len(COLOURS) else FALLBACK_COLOUR


def draw_figures(configurations: Sequence[Configuration]) -> dict[str, bytes]:
    """PNG files by name, those there is something to draw for."""
    figures_by_name = {
        "accuracy": _draw_curves(configurations, "accuracy"),
        "loss": _draw_curves(configurations, "loss"),
        "time": _draw_accuracy_against_time(configurations),
        "classes": _draw_class_differences(configurations),
    }
    return {name: encode_png(figure) for name, figure in figures_by_name.items() if figure is not None}


def _draw_curves(configurations: Sequence[Configuration], metric: str) -> Figure | None:
    """Of validation, a line a configuration: the mean over seeds in a band from the lowest to the highest, up to the
    epoch that all its seeds reached."""
    indexed_curves = [
        (index, stack_curves(configuration.runs, f"val_{metric}")) for index, configuration in enumerate(configurations)
    ]
    drawable_curves = [(index, curves) for index, curves in indexed_curves if curves.size]
    if not drawable_curves:
        return None
    figure, axes = _create_figure(len(drawable_curves))
    for index, curves in reversed(drawable_curves):  # the best on top
        epochs = np.arange(1, curves.shape[1] + 1)
        colour = get_colour(index)
        axes.plot(epochs, curves.mean(0), color=colour, linewidth=1.8, marker="o", markersize=3)
        axes.fill_between(epochs, curves.min(0), curves.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.set_ylabel(f"validation {metric}", color=TEXT_COLOR, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if metric == "loss" and _is_wide(curves for _, curves in drawable_curves):
        axes.set_yscale("log")
        _set_plain_log_ticks(axes.yaxis)
    style_axes(axes, "epoch")
    _draw_legend(figure, configurations, [index for index, _ in drawable_curves])
    return figure


def stack_curves(runs: Sequence[Record], column: str) -> np.ndarray:
    """float64 [seeds, epochs]; no epochs where a run has no such numbers: probes, and runs without validation."""
    curves = [[float(row[column]) for row in run.history if row.get(column)] for run in runs]
    num_epochs = min(map(len, curves))
    return np.array([curve[:num_epochs] for curve in curves]).reshape(len(runs), num_epochs)


def _is_wide(curves: Iterator[np.ndarray]) -> bool:
    ranges = [(curve.min(), np.quantile(curve, 0.95)) for curve in curves]
    low, high = min(low for low, _ in ranges), max(high for _, high in ranges)
    return bool(low > 0 and high > MIN_LOG_SCALE_RATIO * low)


def _draw_accuracy_against_time(configurations: Sequence[Configuration]) -> Figure:
    """Mean test accuracy with its interval against the median time, which a line from the shortest to the longest
    crosses."""
    figure, axes = _create_figure(len(configurations))
    for index, configuration in reversed(list(enumerate(configurations))):
        seconds, estimate = configuration.get_scores("timing", "wall_s"), configuration.test_accuracy
        median_s = configuration.compute_median("wall_s")
        xerr = [[median_s - min(seconds)], [max(seconds) - median_s]]
        yerr = [[estimate.mean - estimate.low], [estimate.high - estimate.mean]]
        style: Any = {"color": get_colour(index), "elinewidth": 1.2, "capsize": 2, "markeredgecolor": "white"}
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
    """A row a class, those that differ most; a column a configuration; how many points of accuracy above or below the
    reference."""
    reference = next(configuration for configuration in configurations if configuration.is_reference)
    classes = set(reference.class_accuracies)
    other_configurations = [
        configuration
        for configuration in configurations
        if not configuration.is_reference and set(configuration.class_accuracies) == classes
    ]
    other_configurations = other_configurations[:MAX_COLUMNS]
    if not other_configurations:
        return None
    class_names = select_most_different_classes(
        reference.class_accuracies, [configuration.class_accuracies for configuration in other_configurations]
    )
    differences = np.array(
        [
            [_compute_difference(configuration, reference, name) for configuration in other_configurations]
            for name in class_names
        ]
    )
    figure = Figure(figsize=(FIGURE_WIDTH, 1.7 + 0.24 * len(class_names)), layout="constrained")
    axes = figure.subplots()
    limit = max(5.0, float(np.abs(differences).max()))
    axes.imshow(differences, cmap="RdBu", norm=TwoSlopeNorm(0, -limit, limit), aspect="auto")
    for (row, column), value in np.ndenumerate(differences):
        text_colour = "white" if abs(value) > 0.6 * limit else TEXT_COLOR
        text = "0" if abs(value) < 0.05 else f"{value:+.1f}" if len(other_configurations) <= 6 else f"{value:+.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=text_colour)
    axes.set_yticks(range(len(class_names)), [shorten_name(name, 18) for name in class_names])
    tick_label_style: Any = (
        {"rotation": 35, "ha": "left", "rotation_mode": "anchor"} if len(other_configurations) > 2 else {}
    )
    axes.set_xticks(
        range(len(other_configurations)),
        [shorten_name(configuration.short_label, 26) for configuration in other_configurations],
        **tick_label_style,
    )
    axes.tick_params(colors=TEXT_COLOR, labelsize=8, length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


def select_most_different_classes(
    reference: Mapping[str, float], other_accuracies: Sequence[Mapping[str, float]]
) -> list[str]:
    """Classes by the largest difference of any other from the reference, at most MOST_CLASSES."""
    max_differences = {
        name: max(abs(accuracies[name] - value) for accuracies in other_accuracies) for name, value in reference.items()
    }
    return sorted(max_differences, key=lambda name: -max_differences[name])[:MAX_CLASSES]


def _compute_difference(configuration: Configuration, reference: Configuration, class_name: str) -> float:
    return 100 * (configuration.class_accuracies[class_name] - reference.class_accuracies[class_name])


def _create_figure(num_legend_entries: int) -> tuple[Figure, Axes]:
    """Room for a legend of `lines` entries below a figure of the same height always."""
    figure = Figure(figsize=(FIGURE_WIDTH, 3.4 + 0.2 * min(num_legend_entries, len(COLOURS) + 1)), layout="constrained")
    return figure, figure.subplots()


def _draw_legend(figure: Figure, configurations: Sequence[Configuration], indices: Sequence[int]) -> None:
    axes = figure.axes[0]
    for index in [index for index in indices if index < len(COLOURS)]:
        configuration = configurations[index]
        label = shorten_name(configuration.label, MAX_LABEL_LENGTH) + (
            " (reference)" if configuration.is_reference else ""
        )
        axes.plot([], [], "o-", color=get_colour(index), label=label, markersize=5)
    if num_others := sum(index >= len(COLOURS) for index in indices):
        axes.plot([], [], "o-", color=FALLBACK_COLOUR, label=f"{num_others} others", markersize=5)
    figure.legend(loc="outside lower left", frameon=False, fontsize=8, labelcolor=TEXT_COLOR, labelspacing=0.3)


def _set_plain_log_ticks(axis: Axis) -> None:
    """1, 2, 5, 10 on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
