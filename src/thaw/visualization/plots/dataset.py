"""Plot a data set: images per class, their sizes, and samples with and without augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from thaw.data.sample_table import SPLITS
from thaw.data.samples import Samples
from thaw.visualization.plots.style import FIGURE_WIDTH, TEXT_COLOR, style_axes
from thaw.visualization.plots.text import format_label

SPLIT_COLORS = {"train": "#9ccbe8", "val": "#0072b2", "test": "#e69f00"}  # they differ in lightness too
MAX_NAMED_CLASSES = 40


def plot_class_counts(samples: Samples) -> Figure:
    """Plot a bar per class with its splits one after another; for very many classes, the curve of their sizes."""
    counts = {
        split: np.bincount(samples.get_labels()[samples.get_positions(split)], minlength=len(samples.classes))
        for split in SPLITS
    }
    has_class_names = len(samples.classes) <= MAX_NAMED_CLASSES
    height = 1.2 + 0.23 * len(samples.classes) if has_class_names else 4
    figure = Figure(figsize=(FIGURE_WIDTH, height), layout="constrained")
    axes = figure.subplots()
    order = np.arange(len(samples.classes)) if has_class_names else np.argsort(-sum(counts.values()), kind="stable")
    offsets = np.zeros(len(order), dtype=np.int64)
    for split in [split for split in SPLITS if counts[split].any()]:
        widths = counts[split][order]
        axes.barh(np.arange(len(order)), widths, left=offsets, color=SPLIT_COLORS[split], label=split, height=0.72)
        offsets += widths
    axes.invert_yaxis()
    if has_class_names:
        axes.set_yticks(range(len(order)), [format_label(samples.classes[label]) for label in order])
    else:
        axes.set_ylabel(f"{len(order)} classes, the largest first", color=TEXT_COLOR, fontsize=9)
    figure.legend(loc="outside upper right", frameon=False, fontsize=9, ncols=3)
    style_axes(axes, "images")
    return figure


def plot_image_sizes(sizes: np.ndarray) -> Figure:
    """Plot width against height in pixels; `sizes` is int64 [images, 2] of height and width."""
    figure = Figure(figsize=(FIGURE_WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    pairs, counts = np.unique(sizes[:, ::-1], axis=0, return_counts=True)
    area = 14 * np.sqrt(counts)
    axes.scatter(pairs[:, 0], pairs[:, 1], s=area.clip(max=400), alpha=0.45, color=SPLIT_COLORS["val"], linewidths=0)
    if sizes.max() > 4 * np.median(sizes):  # a few huge images would push all others into a corner
        axes.set(xscale="log", yscale="log")
        tick_multiples = (1.0, 2.0, 5.0) if sizes.max() < 100 * sizes.min() else (1.0,)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(LogLocator(subs=tick_multiples, numticks=12))
            axis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
            axis.set_minor_locator(NullLocator())
    axes.set_ylabel("height", color=TEXT_COLOR, fontsize=9)
    style_axes(axes, "width, pixels")
    return figure


def plot_aspect_ratios(sizes: np.ndarray) -> Figure:
    """Plot a histogram of width to height on a logarithmic axis: 2:1 is as far from 1:1 as 1:2."""
    figure = Figure(figsize=(FIGURE_WIDTH, 3.6), layout="constrained")
    axes = figure.subplots()
    ratios = np.log2(sizes[:, 1] / sizes[:, 0])
    limit = max(1.5, float(np.abs(ratios).max()) + 0.1)
    axes.hist(ratios, bins=np.linspace(-limit, limit, 42).tolist(), color=SPLIT_COLORS["val"])
    step = max(1, int(limit) // 3)
    ticks = range(-step * int(limit / step), int(limit) + 1, step)
    axes.set_xticks(list(ticks), [f"1:{2**-tick}" if tick < 0 else f"{2**tick}:1" for tick in ticks])
    axes.set_ylabel("images", color=TEXT_COLOR, fontsize=9)
    style_axes(axes, "width : height")
    return figure


def plot_image_rows(
    rows: Sequence[Sequence[np.ndarray]], labels: Sequence[str], headings: Sequence[str] = ()
) -> Figure:
    """Plot rows of uint8 [height, width, 3] images, each with a label; `headings` are those of the columns."""
    columns = max(map(len, rows))
    figure = Figure(figsize=(1.3 + 1.15 * columns, 0.35 + 1.2 * len(rows)), layout="constrained")
    grid: Any = figure.subplots(len(rows), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for row_axes, images, label in zip(grid, rows, labels, strict=True):
        for axes, pixels in zip(row_axes, images, strict=False):
            axes.imshow(pixels)
        text_options = {"transform": row_axes[0].transAxes, "ha": "right", "va": "center"}
        row_axes[0].text(-0.08, 0.5, format_label(label), fontsize=9, color=TEXT_COLOR, **text_options)
    for axes, heading in zip(grid[0], headings, strict=False):
        axes.set_title(heading, fontsize=8, color=TEXT_COLOR)
    return figure
