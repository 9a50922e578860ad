"""The picture of a search: how good its trials were, in their order and by each value."""

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

from thaw.analysis.plots import TRAIN, VAL

BEST = "#c22020"
COLUMNS = 3


@dataclass(frozen=True)
class Point:
    """A trial, numbered from 1, with its validation accuracy: in its last epoch where it was pruned."""

    number: int
    values: Mapping[str, Any]
    accuracy: float
    is_pruned: bool


@dataclass(frozen=True)
class Axis:
    """A key that was searched; `importance` is the share of variance it explains, None where that is not known."""

    key: str
    is_choice: bool
    is_log: bool
    importance: float | None


def save_search(points: Sequence[Point], best: Point, keys: Sequence[Axis], file: Path) -> None:
    """One panel over the trials, one for each key; `best` of `points` is ringed."""
    columns = min(COLUMNS, 1 + len(keys))
    rows = math.ceil((1 + len(keys)) / columns)
    figure = Figure(figsize=(4.4 * columns, 3.6 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    panels = list(grid.flat)
    _draw_history(panels[0], points, best)
    for panel, key in zip(panels[1:], keys, strict=False):
        _draw_key(panel, points, key, best)
    for panel in grid[:, 0]:
        panel.set_ylabel("validation accuracy")
    for panel in panels[1 + len(keys) :]:
        panel.set_visible(False)
    figure.savefig(file, dpi=110)


def _draw_history(panel: Axes, points: Sequence[Point], best: Point) -> None:
    done = [one for one in points if not one.is_pruned]
    highest = list(accumulate((one.accuracy for one in done), max))
    across, up = [*(one.number for one in done), points[-1].number], [*highest, highest[-1]]
    panel.step(across, up, where="post", color=BEST, linewidth=0.9, label="best so far")
    _scatter(panel, points, [one.number for one in points], best)
    panel.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    panel.legend(frameon=False, fontsize=8)
    _titled(panel, "Trials in their order", "trial")


def _draw_key(panel: Axes, points: Sequence[Point], key: Axis, best: Point) -> None:
    values = [one.values[key.key] for one in points]
    if key.is_choice:
        names = list(dict.fromkeys(sorted(map(str, values))))
        panel.set_xticks(range(len(names)), names)
        panel.set_xlim(-0.5, len(names) - 0.5)
        values = [names.index(str(value)) for value in values]
    elif key.is_log:
        panel.set_xscale("log")
    _scatter(panel, points, values, best)
    told = f"explains {key.importance:.0%} (fANOVA)" if key.importance is not None else ""
    _titled(panel, told, key.key)


def _scatter(panel: Axes, points: Sequence[Point], places: Sequence[float], best: Point) -> None:
    for is_pruned, colour, marker, label in ((False, VAL, "o", "done"), (True, TRAIN, "x", "pruned")):
        shown = [(at, one) for at, one in zip(places, points, strict=True) if one.is_pruned == is_pruned]
        across, up = [at for at, _ in shown], [one.accuracy for _, one in shown]
        panel.scatter(across, up, s=18, color=colour, marker=marker, label=label if shown else None, alpha=0.8)
    at = places[points.index(best)]
    panel.scatter([at], [best.accuracy], s=70, facecolors="none", edgecolors=BEST, label="best")


def _titled(panel: Axes, title: str, below: str) -> None:
    panel.set_title(title, loc="left", fontsize=11)
    panel.set_xlabel(below)
    panel.spines[["top", "right"]].set_visible(False)
    panel.grid(alpha=0.25)
