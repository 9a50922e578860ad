"""Plot a run: curves, confusion matrix, reliability diagram. Needs no display and no global state of matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from thaw.metrics.calibration import Reliability
from thaw.metrics.per_class import wilson_interval
from thaw.visualization.plots.encode import save_figure
from thaw.visualization.plots.style import PALETTE, TRAIN_COLOR, VAL_COLOR
from thaw.visualization.plots.text import format_label

MAX_NAMED_CLASSES = 60


def save_curves(rows: Sequence[Mapping[str, str]], file: Path) -> None:
    """Save loss, accuracy and learning rates over the epochs, from the rows of a history.

    Each panel fills a third of the width, with its labels: the report stacks the thirds on a narrow screen.
    """
    figure = Figure(figsize=(12, 3.6))  # with fixed margins: matplotlib's layout engine would take half a second
    loss_axes, accuracy_axes, rate_axes = (
        figure.add_axes((index / 3 + 0.045, 0.13, 1 / 3 - 0.058, 0.78)) for index in range(3)
    )
    epochs = [int(row["epoch"]) for row in rows]
    for axes, key, title in ((loss_axes, "loss", "Loss"), (accuracy_axes, "accuracy", "Accuracy")):
        for split, color in (("train", TRAIN_COLOR), ("val", VAL_COLOR)):
            if rows[-1][f"{split}_{key}"] != "":
                values = [float(row[f"{split}_{key}"]) for row in rows]
                axes.plot(epochs, values, color=color, marker="o", markersize=3, label=split)
        axes.legend(frameon=False)
        _style_axes(axes, title)
    rates = {key: [float(row[key]) for row in rows] for key in rows[-1] if key.startswith("lr_")}
    _draw_rates(rate_axes, epochs, rates)
    save_figure(figure, file)


def _draw_rates(axes: Axes, epochs: list[int], rates: Mapping[str, list[float]]) -> None:
    """Draw one line for all parts with the same learning rates."""
    names_by_rates: dict[tuple[float, ...], list[str]] = {}
    for key, values in rates.items():
        names_by_rates.setdefault(tuple(values), []).append(key.removeprefix("lr_"))
    for color, (rate_values, names) in zip(cycle(PALETTE), names_by_rates.items()):
        label = names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}"
        if any(rate_values):
            axes.plot(epochs, rate_values, color=color, marker="o", markersize=3, label=format_label(label, 40))
    positive_rates = {value for rate_values in names_by_rates for value in rate_values if value}
    if len(positive_rates) > 1:  # a logarithmic axis shows no tick for a single value
        axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())  # the layout of minor labels takes longer than everything else here
    axes.legend(frameon=False)
    _style_axes(axes, "Learning rate at the epoch's first step")


def _style_axes(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, y=1.02)  # with y, matplotlib does not search for a free position
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def save_confusion_matrix(confusion: np.ndarray, classes: Sequence[str], title: str, file: Path) -> None:
    """Save a confusion matrix of int64 counts; rows are labels, columns predictions, colors the fraction of the row."""
    count = len(classes)
    cell = 0.26 if count <= 36 else 0.2  # inches; 60 classes on a page 1,100 pixels wide keep letters of 10 pixels
    side = min(24.0, max(4.0, 1.8 + cell * count))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    row_fractions = confusion / np.maximum(1, confusion.sum(1, keepdims=True))
    image = axes.imshow(row_fractions, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.6, label="fraction of the label's images")
    if count <= MAX_NAMED_CLASSES:
        names = [format_label(name) for name in classes]
        axes.set_xticks(range(count), names, rotation=90 if count > 6 or max(map(len, names)) > 8 else 0)
        axes.set_yticks(range(count), names)
        _draw_counts(axes, confusion, row_fractions)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    axes.set_title(title, loc="left", fontsize=11, y=1.02)
    save_figure(figure, file)


def _draw_counts(axes: Axes, confusion: np.ndarray, row_fractions: np.ndarray) -> None:
    font_size = 10 if len(confusion) < 12 else 8
    for row, column in zip(*np.nonzero(confusion), strict=True):
        text_color = "white" if row_fractions[row, column] > 0.5 else "black"
        axes.text(
            column, row, str(confusion[row, column]), ha="center", va="center", color=text_color, fontsize=font_size
        )


def save_reliability_diagram(reliability: Reliability, title: str, file: Path) -> None:
    """Save a reliability diagram.

    The upper panel shows the accuracy of each bin with its 95 % interval and the diagonal of perfect calibration, the
    lower panel the number of predictions per bin.
    """
    figure = Figure(figsize=(5.2, 6.6), layout="constrained")
    accuracy_axes, count_axes = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    _draw_bin_accuracies(accuracy_axes, reliability)
    accuracy_axes.set_title(format_label(title, 60), loc="left", fontsize=11)
    edges = np.linspace(0, 1, len(reliability.counts) + 1)
    bars = count_axes.bar(
        edges[:-1], reliability.counts, np.diff(edges), align="edge", color=VAL_COLOR, edgecolor="white"
    )
    count_axes.bar_label(bars, [str(count) if count else "" for count in reliability.counts], fontsize=7)
    count_axes.margins(y=0.25)
    count_axes.set(xlabel="probability of the prediction", ylabel="images")
    figure.legend(loc="outside lower center", frameon=False, ncols=2, fontsize=9)
    for axes in (accuracy_axes, count_axes):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    save_figure(figure, file)


def _draw_bin_accuracies(axes: Axes, reliability: Reliability) -> None:
    is_filled = reliability.counts > 0
    accuracies, counts = reliability.accuracy[is_filled], reliability.counts[is_filled]
    bounds = np.array(
        [wilson_interval(round(accuracy * count), count) for accuracy, count in zip(accuracies, counts, strict=True)]
    )
    axes.plot((0, 1), (0, 1), color=TRAIN_COLOR, linestyle="--", linewidth=1, label="perfect calibration")
    style: Any = {"fmt": "o", "color": VAL_COLOR, "markersize": 4, "linewidth": 1.2, "capsize": 2}
    axes.errorbar(
        reliability.confidence[is_filled],
        accuracies,
        np.abs(bounds.T - accuracies),
        label="accuracy, 95 % interval",
        **style,
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
