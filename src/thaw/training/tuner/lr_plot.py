"""The picture of a learning-rate range test."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from thaw.system.files import write_text
from thaw.training.tuner.lr_finder import LRCurve
from thaw.visualization.plots.training import TRAIN_COLOUR, VAL_COLOUR

SUGGESTION_COLOUR = "#c22020"


def save_lr_curve(curve: LRCurve, title: str, file: Path) -> None:
    """Loss and smoothed loss against the learning rate, the suggestion marked where there is one."""
    figure = Figure(figsize=(7.2, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        curve.learning_rates, curve.losses, color=TRAIN_COLOUR, linewidth=0.8, alpha=0.6, label="loss of the step"
    )
    axes.plot(curve.learning_rates, curve.smoothed_losses, color=VAL_COLOUR, label="smoothed")
    if (step := curve.steepest_step) is not None:
        label = f"steepest descent, {curve.learning_rates[step]:.1e}"
        axes.axvline(curve.learning_rates[step], color=SUGGESTION_COLOUR, linewidth=0.8)
        axes.plot(curve.learning_rates[step], curve.smoothed_losses[step], "o", color=SUGGESTION_COLOUR, label=label)
    axes.set_xscale("log")
    axes.set_ylim(0, 1.25 * max(curve.smoothed_losses[: curve.minimum_step + 1]))  # above, it only diverges
    axes.set_xlabel("optimizer.learning_rate")
    axes.set_ylabel("training loss")
    axes.set_title(title, loc="left", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    figure.savefig(file, dpi=110)


def write_lr_curve(curve: LRCurve, title: str, folder: Path) -> None:
    """Write learning_rate.csv (step, learning_rate, loss, smoothed_loss) and learning_rate.png to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = zip(curve.learning_rates, curve.losses, curve.smoothed_losses, strict=True)
    lines = [f"{step},{rate:.6g},{loss:.6g},{mean:.6g}" for step, (rate, loss, mean) in enumerate(rows, 1)]
    write_text(folder / "learning_rate.csv", "\n".join(["step,learning_rate,loss,smoothed_loss", *lines]) + "\n")
    save_lr_curve(curve, title, folder / "learning_rate.png")
