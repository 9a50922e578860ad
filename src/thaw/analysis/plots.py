"""The diagrams of a run: curves, confusion matrix. Drawn without a screen and without global state."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from thaw.analysis.encoded import DIAGRAMS

TRAIN, VAL = "#8a8a8a", "#0b6bcb"
MOST_NAMED_CLASSES = 60


def save_curves(rows: Sequence[Mapping[str, str]], file: Path) -> None:
    """Loss, accuracy and learning rates over the epochs of a `history.csv`."""
    figure = Figure(figsize=(12, 3.6))  # margins by hand: matplotlib's layout engine would take half a second
    loss, accuracy, rate = figure.subplots(1, 3)
    figure.subplots_adjust(left=0.045, right=0.99, bottom=0.13, top=0.91, wspace=0.17)
    epochs = [int(row["epoch"]) for row in rows]
    for axes, key, title in ((loss, "loss", "Loss"), (accuracy, "accuracy", "Accuracy")):
        for split, colour in (("train", TRAIN), ("val", VAL)):
            if rows[-1][f"{split}_{key}"] != "":
                values = [float(row[f"{split}_{key}"]) for row in rows]
                axes.plot(epochs, values, color=colour, marker="o", markersize=3, label=split)
        axes.legend(frameon=False)
        _titled(axes, title)
    rates = {key: [float(row[key]) for row in rows] for key in rows[-1] if key.startswith("lr_")}
    _draw_rates(rate, epochs, rates)
    figure.savefig(file, dpi=110, pil_kwargs=DIAGRAMS)


def _draw_rates(axes: Axes, epochs: list[int], rates: Mapping[str, list[float]]) -> None:
    """One line for all parts that move together."""
    alike: dict[tuple[float, ...], list[str]] = {}
    for key, values in rates.items():
        alike.setdefault(tuple(values), []).append(key.removeprefix("lr_"))
    for moves, names in alike.items():
        label = names[0] if len(names) == 1 else f"{names[0]} .. {names[-1]}"
        if any(moves):
            axes.plot(epochs, moves, marker="o", markersize=3, label=label)
    if len({value for moves in alike for value in moves if value}) > 1:  # a single one has no room on such a scale
        axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())  # laying out their labels takes longer than all else here
    axes.legend(frameon=False)
    _titled(axes, "Learning rate at the epoch's first step")


def _titled(axes: Axes, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, y=1.02)  # with y, matplotlib need not look where there is room
    axes.set_xlabel("epoch")
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def save_confusion(confusion: np.ndarray, classes: Sequence[str], title: str, file: Path) -> None:
    """Rows are labels, columns predictions, both int64 counts; colour is the share of the row."""
    count = len(classes)
    side = min(24.0, max(4.0, 1.8 + 0.26 * count))
    figure = Figure(figsize=(side + 0.8, side), layout="constrained")
    axes = figure.subplots()
    shares = confusion / np.maximum(1, confusion.sum(1, keepdims=True))
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    figure.colorbar(image, ax=axes, shrink=0.6, label="share of the label's images")
    if count <= MOST_NAMED_CLASSES:
        axes.set_xticks(range(count), classes, rotation=90 if count > 6 else 0)
        axes.set_yticks(range(count), classes)
        _write_counts(axes, confusion, shares)
    axes.set_xlabel("prediction")
    axes.set_ylabel("label")
    axes.set_title(title, loc="left", fontsize=11, y=1.02)
    figure.savefig(file, dpi=110, pil_kwargs=DIAGRAMS)


def _write_counts(axes: Axes, confusion: np.ndarray, shares: np.ndarray) -> None:
    size = 10 if len(confusion) < 12 else 7
    for row, column in zip(*np.nonzero(confusion), strict=True):
        ink = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(confusion[row, column]), ha="center", va="center", color=ink, fontsize=size)
