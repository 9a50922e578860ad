"""How often predictions of a probability are right, as a picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from thaw.analysis.calibration import Reliability
from thaw.analysis.metrics import wilson

BLUE, GREY = "#0b6bcb", "#8a8a8a"


def save_reliability(found: Reliability, title: str, file: Path) -> None:
    """Above, the share that is right of each bin with its 95 % interval, beside the diagonal of perfect calibration;
    below, how many predictions the bins hold."""
    figure = Figure(figsize=(5.2, 6.2), layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=(4, 1), sharex=True)
    edges = np.linspace(0, 1, len(found.counts) + 1)
    filled = found.counts > 0
    shares, counts = found.accuracy[filled], found.counts[filled]
    bounds = np.array([wilson(round(share * count), count) for share, count in zip(shares, counts, strict=True)])
    reach = np.abs(bounds.T - shares)
    above.plot((0, 1), (0, 1), color=GREY, linestyle="--", linewidth=1, label="perfect calibration")
    above.errorbar(
        found.confidence[filled], shares, reach, fmt="o", color=BLUE, markersize=4, linewidth=1.2, capsize=2,
        label="share right, 95 % interval",
    )  # fmt: skip
    above.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="share that is right")
    above.legend(loc="upper left", edgecolor="none", framealpha=0.9)
    above.set_title(title, loc="left", fontsize=11)
    bars = below.bar(edges[:-1], found.counts, np.diff(edges), align="edge", color=BLUE, edgecolor="white")
    below.bar_label(bars, [str(count) if count else "" for count in found.counts], fontsize=7)
    below.margins(y=0.25)
    below.set(xlabel="probability of the prediction", ylabel="images")
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
    figure.savefig(file, dpi=110)
