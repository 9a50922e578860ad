"""The style of all plots: colors that color-blind readers can tell apart, sizes, axes without frames."""

from __future__ import annotations

from matplotlib.axes import Axes

TEXT_COLOR = "#33404d"
TRAIN_COLOR, VAL_COLOR = "#8a8a8a", "#0b6bcb"
HIGHLIGHT_COLOR = "#c22020"
FIGURE_WIDTH = 5.4  # inches; legible on a phone and, two side by side, on a laptop
# The colors of Okabe and Ito 2008 without yellow, which is faint on white, and four dark ones. A test simulates color
# blindness: the two nearest colors stay 16 units of Lab apart, and all as far from white.
PALETTE = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#b34700", "#5d0d6d", "#000000", "#1d08c6", "#576362")


def style_axes(axes: Axes, xlabel: str) -> None:
    """Style the axes of a plot for a page: a faint grid and no frame."""
    axes.set_xlabel(xlabel, color=TEXT_COLOR, fontsize=9)
    axes.tick_params(colors=TEXT_COLOR, labelsize=9, length=0)
    axes.spines[["top", "right", "left", "bottom"]].set_visible(False)
    axes.grid(alpha=0.25)
    axes.set_axisbelow(True)
