"""Plot the trials of a search: validation accuracy in their order and by each searched key."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from thaw.visualization.plots.encode import save_figure
from thaw.visualization.plots.style import HIGHLIGHT_COLOR, TRAIN_COLOR, VAL_COLOR
from thaw.visualization.plots.text import format_label

COLUMNS = 3


@dataclass(frozen=True)
class TrialPoint:
    """A trial, numbered from 1, with its validation accuracy; a pruned trial's is that of its last epoch."""

    number: int
    params: Mapping[str, Any]
    accuracy: float
    is_pruned: bool


@dataclass(frozen=True)
class SearchParameter:
    """A searched key; `importance` is the fraction of the variance that it explains, None where that is not known."""

    key: str
    is_categorical: bool
    is_log: bool
    importance: float | None


def save_search_plot(
    points: Sequence[TrialPoint], best: TrialPoint, parameters: Sequence[SearchParameter], file: Path
) -> None:
    """Save a plot with a panel of all trials in order and a panel per key; a ring marks the `best` of `points`."""
    columns = min(COLUMNS, 1 + len(parameters))
    rows = math.ceil((1 + len(parameters)) / columns)
    figure = Figure(figsize=(4.4 * columns, 3.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    panels = list(grid.flat)
    _draw_history(panels[0], points, best)
    for panel, parameter in zip(panels[1:], parameters, strict=False):
        _draw_parameter(panel, points, parameter, best)
    for panel in grid[:, 0]:
        panel.set_ylabel("validation accuracy")
    for panel in panels[1 + len(parameters) :]:
        panel.set_visible(False)
    save_figure(figure, file)


def _draw_history(panel: Axes, points: Sequence[TrialPoint], best: TrialPoint) -> None:
    completed = [point for point in points if not point.is_pruned]
    best_so_far = list(accumulate((point.accuracy for point in completed), max))
    xs, ys = [*(point.number for point in completed), points[-1].number], [*best_so_far, best_so_far[-1]]
    panel.step(xs, ys, where="post", color=HIGHLIGHT_COLOR, linewidth=0.9, label="best so far")
    _draw_points(panel, points, [point.number for point in points], best)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panel.legend(frameon=False, fontsize=8)
    _style_axes(panel, "Trials in order", "trial")


def _draw_parameter(panel: Axes, points: Sequence[TrialPoint], parameter: SearchParameter, best: TrialPoint) -> None:
    values = [point.params[parameter.key] for point in points]
    if parameter.is_categorical:
        names = list(dict.fromkeys(sorted(map(str, values))))
        panel.set_xticks(range(len(names)), [format_label(name) for name in names])
        panel.set_xlim(-0.5, len(names) - 0.5)
        values = [names.index(str(value)) for value in values]
    elif parameter.is_log:
        panel.set_xscale("log")
    _draw_points(panel, points, values, best)
    title = f"explains {parameter.importance:.0%} (fANOVA)" if parameter.importance is not None else ""
    _style_axes(panel, title, parameter.key)


def _draw_points(panel: Axes, points: Sequence[TrialPoint], positions: Sequence[float], best: TrialPoint) -> None:
    for is_pruned, color, marker, label in ((False, VAL_COLOR, "o", "done"), (True, TRAIN_COLOR, "x", "pruned")):
        indices = [index for index, point in enumerate(points) if point.is_pruned == is_pruned]
        xs, ys = [positions[index] for index in indices], [points[index].accuracy for index in indices]
        panel.scatter(xs, ys, s=18, color=color, marker=marker, label=label if indices else None, alpha=0.8)
    x = positions[points.index(best)]
    panel.scatter([x], [best.accuracy], s=70, facecolors="none", edgecolors=HIGHLIGHT_COLOR, label="best")


def _style_axes(panel: Axes, title: str, xlabel: str) -> None:
    panel.set_title(title, loc="left", fontsize=11)
    panel.set_xlabel(xlabel)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
