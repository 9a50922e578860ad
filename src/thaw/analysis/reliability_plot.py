"""How often predictions of a probability are right, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from thaw.analysis.calibration import Reliability
from thaw.analysis.metrics import wilson_interval

BLUE, GREY = "#0b6bcb", "#8a8a8a"


def save_reliability_diagram(reliability: Reliability, title: str, file: Path) -> None:
    """Above, the share that is right of each bin with its 95 % interval, beside the diagonal of perfect calibration;
    below, how many predictions the bins hold."""
    figure = Figure(figsize=(5.2, 6.2), layout="constrained")
    accuracy_axes, count_axes = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    edges = np.linspace(0, 1, len(reliability.counts) + 1)
    is_filled = reliability.counts > 0
    accuracies, counts = reliability.accuracy[is_filled], reliability.counts[is_filled]
    bounds = np.array(
        [wilson_interval(round(accuracy * count), count) for accuracy, count in zip(accuracies, counts, strict=True)]
    )
    error_sizes = np.abs(bounds.T - accuracies)
    accuracy_axes.plot((0, 1), (0, 1), color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
    accuracy_axes.errorbar(
        reliability.confidence[is_filled], accuracies, error_sizes, fmt="o", color=BLUE, markersize=4, linewidth=1.2, capsize=2,
        label="share right, 95 % interval",
    )  # fmt: skip
    accuracy_axes.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right")
    accuracy_axes.legend(loc="upper left", edgecolor="none", framealpha=0.9)
    accuracy_axes.set_title(title, loc="left", fontsize=11)
    bars = count_axes.bar(edges[:-1], reliability.counts, np.diff(edges), align="edge", color=BLUE, edgecolor="white")
    count_axes.bar_label(bars, [str(count) if count else "" for count in reliability.counts], fontsize=7)
    count_axes.margins(y=0.25)
    count_axes.set(xlabel="probability of the prediction", ylabel="images")
    for axes in (accuracy_axes, count_axes):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(file, dpi=110)
