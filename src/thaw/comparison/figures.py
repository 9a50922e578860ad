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

from thaw.analysis.dataset_plots import INK, WIDTH, calm, shortened
from thaw.analysis.encoded import png_of
from thaw.comparison.configurations import Configuration
from thaw.comparison.runs import Record

# Of the configurations in the table's order; the reds and greens differ in lightness too.
COLOURS = ("#2f6fad", "#e58a2e", "#2c8a57", "#b8336a", "#8067b7", "#8c6d31", "#1aa3b5", "#c9a227", "#d8573c", "#44525f")
OTHERS = "#b9c3cb"
MOST_CHARACTERS = 44
MOST_CLASSES, MOST_COLUMNS = 20, 10
LOGARITHMIC = 20  # times the smallest: seconds this far apart need a logarithmic axis


def colour_of(place: int) -> str:
    """Of the configuration at `place` in the table; those past the colours share one."""
    return COLOURS[place] if place < len(COLOURS) else OTHERS


def figures(configurations: Sequence[Configuration]) -> dict[str, bytes]:
    """PNG files by name, those there is something to draw for."""
    drawn = {
        "accuracy": _curves(configurations, "accuracy"),
        "loss": _curves(configurations, "loss"),
        "time": _against_time(configurations),
        "classes": _class_differences(configurations),
    }
    return {name: png_of(figure) for name, figure in drawn.items() if figure is not None}


def _curves(configurations: Sequence[Configuration], kind: str) -> Figure | None:
    """Of validation, a line a configuration: the mean over seeds in a band from the lowest to the highest, up to the
    epoch that all its seeds reached."""
    found = [(place, curves_of(one.runs, f"val_{kind}")) for place, one in enumerate(configurations)]
    shown = [(place, curves) for place, curves in found if curves.size]
    if not shown:
        return None
    figure, axes = _empty(len(shown))
    for place, curves in reversed(shown):  # the best on top
        epochs = np.arange(1, curves.shape[1] + 1)
        colour = colour_of(place)
        axes.plot(epochs, curves.mean(0), color=colour, linewidth=1.8, marker="o", markersize=3)
        axes.fill_between(epochs, curves.min(0), curves.max(0), color=colour, alpha=0.15, linewidth=0)
    axes.set_ylabel(f"validation {kind}", color=INK, fontsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    if kind == "loss" and _is_wide(curves for _, curves in shown):
        axes.set_yscale("log")
        _plain_numbers(axes.yaxis)
    calm(axes, "epoch")
    _legend(figure, configurations, [place for place, _ in shown])
    return figure


def curves_of(runs: Sequence[Record], column: str) -> np.ndarray:
    """float64 [seeds, epochs]; no epochs where a run has no such numbers: probes, and runs without validation."""
    curves = [[float(row[column]) for row in run.history if row.get(column)] for run in runs]
    shortest = min(map(len, curves))
    return np.array([curve[:shortest] for curve in curves]).reshape(len(runs), shortest)


def _is_wide(curves: Iterator[np.ndarray]) -> bool:
    ends = [(one.min(), np.quantile(one, 0.95)) for one in curves]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    return bool(low > 0 and high > LOGARITHMIC * low)


def _against_time(configurations: Sequence[Configuration]) -> Figure:
    """Mean test accuracy with its interval against the median time, which a line from the shortest to the longest
    crosses."""
    figure, axes = _empty(len(configurations))
    for place, one in reversed(list(enumerate(configurations))):
        seconds, spread = one.scores("timing", "wall_s"), one.accuracy
        middle = one.median("wall_s")
        across = [[middle - min(seconds)], [max(seconds) - middle]]
        upright = [[spread.mean - spread.low], [spread.high - spread.mean]]
        style: Any = {"color": colour_of(place), "elinewidth": 1.2, "capsize": 2, "markeredgecolor": "white"}
        axes.errorbar(middle, spread.mean, upright, across, "o", markersize=8 if one.is_reference else 6.5, **style)
    times = [value for one in configurations for value in one.scores("timing", "wall_s")]
    if max(times) > LOGARITHMIC * min(times):
        axes.set_xscale("log")
        _plain_numbers(axes.xaxis)
    else:
        axes.set_xlim(left=0)
    axes.set_ylabel("test accuracy", color=INK, fontsize=9)
    calm(axes, "seconds a run")
    _legend(figure, configurations, list(range(len(configurations))))
    return figure


def _class_differences(configurations: Sequence[Configuration]) -> Figure | None:
    """A row a class, those that differ most; a column a configuration; how many points of accuracy above or below the
    reference."""
    reference = next(one for one in configurations if one.is_reference)
    classes = set(reference.class_accuracies)
    others = [one for one in configurations if not one.is_reference and set(one.class_accuracies) == classes]
    others = others[:MOST_COLUMNS]
    if not others:
        return None
    names = most_different(reference.class_accuracies, [one.class_accuracies for one in others])
    points = np.array([[_points(one, reference, name) for one in others] for name in names])
    figure = Figure(figsize=(WIDTH, 1.7 + 0.24 * len(names)), layout="constrained")
    axes = figure.subplots()
    reach = max(5.0, float(np.abs(points).max()))
    axes.imshow(points, cmap="RdBu", norm=TwoSlopeNorm(0, -reach, reach), aspect="auto")
    for (row, column), value in np.ndenumerate(points):
        ink = "white" if abs(value) > 0.6 * reach else INK
        text = "0" if abs(value) < 0.05 else f"{value:+.1f}" if len(others) <= 6 else f"{value:+.0f}"
        axes.text(column, row, text, ha="center", va="center", fontsize=8, color=ink)
    axes.set_yticks(range(len(names)), [shortened(name, 18) for name in names])
    tilt: Any = {"rotation": 35, "ha": "left", "rotation_mode": "anchor"} if len(others) > 2 else {}
    axes.set_xticks(range(len(others)), [shortened(one.short, 26) for one in others], **tilt)
    axes.tick_params(colors=INK, labelsize=8, length=0, top=True, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    return figure


def most_different(reference: Mapping[str, float], others: Sequence[Mapping[str, float]]) -> list[str]:
    """Classes by the largest difference of any other from the reference, at most MOST_CLASSES."""
    reach = {name: max(abs(one[name] - value) for one in others) for name, value in reference.items()}
    return sorted(reach, key=lambda name: -reach[name])[:MOST_CLASSES]


def _points(one: Configuration, reference: Configuration, name: str) -> float:
    return 100 * (one.class_accuracies[name] - reference.class_accuracies[name])


def _empty(lines: int) -> tuple[Figure, Axes]:
    """Room for a legend of `lines` entries below a figure of the same height always."""
    figure = Figure(figsize=(WIDTH, 3.4 + 0.2 * min(lines, len(COLOURS) + 1)), layout="constrained")
    return figure, figure.subplots()


def _legend(figure: Figure, configurations: Sequence[Configuration], places: Sequence[int]) -> None:
    axes = figure.axes[0]
    for place in [place for place in places if place < len(COLOURS)]:
        one = configurations[place]
        label = shortened(one.label, MOST_CHARACTERS) + (" (reference)" if one.is_reference else "")
        axes.plot([], [], "o-", color=colour_of(place), label=label, markersize=5)
    if rest := sum(place >= len(COLOURS) for place in places):
        axes.plot([], [], "o-", color=OTHERS, label=f"{rest} others", markersize=5)
    figure.legend(loc="outside lower left", frameon=False, fontsize=8, labelcolor=INK, labelspacing=0.3)


def _plain_numbers(axis: Axis) -> None:
    """1, 2, 5, 10 on a logarithmic axis."""
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0), numticks=12))
    axis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.set_minor_locator(NullLocator())
