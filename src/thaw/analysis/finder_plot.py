"""The picture of a learning-rate range test."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from thaw.analysis.plots import TRAIN, VAL
from thaw.analysis.rate_curve import RateCurve

SUGGESTED = "#c22020"


def save_rate_curve(curve: RateCurve, title: str, file: Path) -> None:
    """Loss and smoothed loss against the learning rate, the suggestion marked where there is one."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(curve.rates, curve.losses, color=TRAIN, linewidth=0.8, alpha=0.6, label="loss of the step")
    axes.plot(curve.rates, curve.smoothed, color=VAL, label="smoothed")
    if (step := curve.steepest) is not None:
        label = f"steepest descent, {curve.rates[step]:.1e}"
        axes.axvline(curve.rates[step], color=SUGGESTED, linewidth=0.8)
        axes.plot(curve.rates[step], curve.smoothed[step], "o", color=SUGGESTED, label=label)
    axes.set_xscale("log")
    axes.set_ylim(0, 1.25 * max(curve.smoothed[: curve.minimum + 1]))  # above, it only diverges
    axes.set_xlabel("optimizer.learning_rate")
    axes.set_ylabel("training loss")
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=110)
