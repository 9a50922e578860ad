"""Compute and plot the features of a data set in two dimensions, by PCA and by t-SNE."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from thaw.config.errors import Problem, UserError
from thaw.data.sample_table import UNUSED_SPLIT, Sample
from thaw.data.samples import Samples
from thaw.visualization.plots.style import PALETTE, TEXT_COLOR
from thaw.visualization.plots.text import format_label

MAX_POINTS = 5000
MAX_PCA_COMPONENTS = 50  # PCA before t-SNE, as in van der Maaten and Hinton 2008
DEFAULT_PERPLEXITY = 30.0  # they found little difference from 5 to 50
MAX_CLASSES_BY_COLOR, MAX_NAMED_CLASSES = 10, 120  # with more than the first, a class has a number too
MARKERS = {"train": "o", "val": "^", "test": "s", UNUSED_SPLIT: "D"}
LEGEND_STYLE: dict[str, Any] = {"frameon": False, "labelcolor": TEXT_COLOR, "handletextpad": 0.2}
MAX_TAG_LENGTH = 3  # characters; shorter names are written into the plot in place of numbers
LABEL_SIZE, LABEL_OFFSET = (0.036, 0.021), 0.012  # a label of 8 points, as fractions of a panel's sides
GOLDEN_RATIO = 0.618034  # of the hue circle between neighboring classes, which often have similar names

Palette = Sequence[tuple[float, float, float]]


@dataclass(frozen=True)
class FeatureEmbedding:
    """The samples at `positions` in two dimensions: `pca` and `tsne`, float [positions, 2].

    `explained_variance_ratio` is that of PCA's two axes, `perplexity` that of t-SNE.
    """

    positions: np.ndarray
    pca: np.ndarray
    explained_variance_ratio: tuple[float, float]
    tsne: np.ndarray
    perplexity: float


def compute_embedding(features: np.ndarray, seed: int, max_points: int = MAX_POINTS) -> FeatureEmbedding:
    """Compute PCA and t-SNE of `features`, float32 [samples, width]; the same seed gives the same result.

    `seed` draws `max_points` of more samples. t-SNE starts from PCA's axes (Kobak and Berens 2019), so that the two
    plots are similar.

    Raises:
        UserError: where features are not finite.
    """
    count = len(features)
    positions = np.sort(np.random.default_rng(seed).permutation(count)[:max_points])
    selected_features = np.asarray(features[positions], dtype=np.float64)
    if num_not_finite := int((~np.isfinite(selected_features)).any(1).sum()):
        got = f"{num_not_finite} of {len(selected_features)} images have values that are not finite"
        raise UserError("the features cannot be plotted.", [Problem("features", got, "finite values")])
    pca_features, explained_variance_ratio = _compute_pca(selected_features, seed)
    perplexity = min(DEFAULT_PERPLEXITY, (len(selected_features) - 1) / 3)
    tsne = _compute_tsne(pca_features, perplexity, seed)
    return FeatureEmbedding(positions, pca_features[:, :2], explained_variance_ratio, tsne, perplexity)


def _compute_pca(features: np.ndarray, seed: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Compute PCA, float [samples, at least 2]; axes without variance are zeros. Return the two largest ratios too."""
    num_components = min(MAX_PCA_COMPONENTS, *features.shape)
    pca_features = np.zeros((len(features), max(2, num_components)))
    explained_variance_ratio = np.zeros(max(2, num_components))
    if np.ptp(features, axis=0).any():
        pca = PCA(num_components, random_state=seed)
        pca_features[:, :num_components] = pca.fit_transform(features)
        explained_variance_ratio[:num_components] = pca.explained_variance_ratio_
    return pca_features, (float(explained_variance_ratio[0]), float(explained_variance_ratio[1]))


def _compute_tsne(pca_features: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    init = pca_features[:, :2] / max(pca_features[:, 0].std(), 1e-12) * 1e-4
    tsne = TSNE(perplexity=perplexity, init=init.astype(np.float32), random_state=seed)
    embedding: np.ndarray = tsne.fit_transform(pca_features)
    return embedding


def plot_embedding(embedding: FeatureEmbedding, samples: Samples, title: str) -> Figure:
    """Plot PCA left and t-SNE right; colors are classes, markers are splits.

    More than MAX_CLASSES_BY_COLOR classes have a number too, or their name if it is short, at the median of their
    images. More than MAX_NAMED_CLASSES classes are not named.
    """
    classes = [format_label(name) for name in samples.classes]
    shown_samples = [samples.samples[position] for position in embedding.positions]
    palette, has_class_names = build_palette(len(classes)), len(classes) <= MAX_NAMED_CLASSES
    tags = _build_tags(classes) if len(classes) > MAX_CLASSES_BY_COLOR and has_class_names else []
    names = [f"{tag} {name}" for tag, name in zip(tags, classes, strict=True)] if tags and tags != classes else classes
    font_size = 7.5 if tags else 10
    rows = -(-len(classes) // _count_columns(names, font_size)) if has_class_names else 1
    figure = Figure(figsize=(12.6, 7.0 + 0.155 * rows), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    variance = ", ".join(f"{ratio:.0%}" for ratio in embedding.explained_variance_ratio)
    pca_title, tsne_title = f"PCA: {variance} of the variance", f"t-SNE: perplexity {embedding.perplexity:.3g}"
    _draw_panel(panels[0], embedding.pca, shown_samples, palette, tags, pca_title)
    _draw_panel(panels[1], embedding.tsne, shown_samples, palette, tags, tsne_title)
    figure.suptitle(title, x=0.004, ha="left", fontsize=12, color=TEXT_COLOR)
    _draw_split_legend(figure, shown_samples)
    if has_class_names:
        _draw_class_legend(figure, names, font_size, palette)
    else:
        figure.supxlabel(f"{len(classes)} classes, too many to be named", fontsize=9, color=TEXT_COLOR)
    return figure


def _build_tags(classes: Sequence[str]) -> list[str]:
    numbers = [str(number) for number in range(1, len(classes) + 1)]
    return list(classes) if max(map(len, classes)) <= MAX_TAG_LENGTH else numbers


def build_palette(num_classes: int) -> Palette:
    """Build one color per class: those of all plots, or hues around the circle in three lightnesses.

    More than ten colors cannot be told apart by color alone; such classes have a number or a name in the plot too.
    """
    if num_classes <= MAX_CLASSES_BY_COLOR:
        return [to_rgb(color) for color in PALETTE[:num_classes]]
    lightness = (0.38, 0.50, 0.64)
    return [
        colorsys.hls_to_rgb(number * GOLDEN_RATIO % 1, lightness[number % 3], 0.75) for number in range(num_classes)
    ]


def _draw_panel(
    axes: Axes, points: np.ndarray, samples: Sequence[Sample], palette: Palette, tags: Sequence[str], title: str
) -> None:
    labels, splits = np.array([sample.label for sample in samples]), np.array([sample.split for sample in samples])
    order = np.random.default_rng(0).permutation(len(points))  # otherwise the last class would cover all others
    marker_size = float(np.clip(16_000 / len(points), 9, 42))
    colors: Any = np.array(palette)[labels]
    for split in MARKERS:
        split_indices = order[splits[order] == split]
        x, y = points[split_indices].T
        style: Any = {"marker": MARKERS[split], "alpha": 0.75, "linewidths": 0.3, "edgecolors": "w"}
        axes.scatter(x, y, s=marker_size, c=colors[split_indices], **style)
    if tags:
        _name_classes(axes, points, labels, tags, palette)
    axes.set_title(title, loc="left", fontsize=11, color=TEXT_COLOR)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color("#d5dade")


def _name_classes(axes: Axes, points: np.ndarray, labels: np.ndarray, names: Sequence[str], palette: Palette) -> None:
    """Write the name or number of each class at the median of its images."""
    present_labels = np.unique(labels)
    medians = np.stack([np.median(points[labels == label], axis=0) for label in present_labels])
    low, extent = points.min(0), np.maximum(np.ptp(points, axis=0), 1e-12)
    label_positions = repel_labels((medians - low) / extent + (0, LABEL_OFFSET)) * extent + low
    for label, (x, y) in zip(present_labels, label_positions, strict=True):
        text = axes.text(x, y, names[label], fontsize=8, fontweight="bold", ha="center", va="center", zorder=5)
        text.set_color(tuple(0.6 * channel for channel in palette[label]))
        text.set_path_effects([withStroke(linewidth=2.2, foreground="white")])


def repel_labels(positions: np.ndarray, label_size: tuple[float, float] = LABEL_SIZE, max_iter: int = 60) -> np.ndarray:
    """Push labels at `positions` apart until they do not overlap, or for `max_iter` iterations.

    `positions` is float [labels, 2]; they, the result and `label_size` are fractions of a panel's sides.
    """
    noise = np.random.default_rng(0).normal(0, 1e-4, positions.shape)  # labels at the same position need a direction
    positions = positions + noise
    for _ in range(max_iter):
        offsets = (positions[:, None] - positions[None]) / label_size
        distance = np.abs(offsets).max(2)
        push = np.where(distance < 1, 0.25 * (1 - distance), 0)
        np.fill_diagonal(push, 0)
        if not push.any():
            break
        positions = positions + (push[..., None] * offsets / np.maximum(distance, 1e-6)[..., None]).sum(1) * label_size
    return positions


def _count_columns(names: Sequence[str], font_size: float) -> int:
    """Count the legend columns that fit into 12.2 inches; marker and gap take 0.4."""
    widths = [TextPath((0, 0), name.replace("$", "S"), size=font_size).get_extents().width / 72 for name in names]
    return max(1, min(len(names), int(12.2 / (0.4 + max(widths)))))


def _draw_split_legend(figure: Figure, samples: Sequence[Sample]) -> None:
    present_splits = {sample.split for sample in samples}
    handles = [_build_legend_handle(MARKERS[split], "#7d8790", split) for split in MARKERS if split in present_splits]
    figure.legend(handles=handles, loc="outside upper right", ncols=3, fontsize=9, **LEGEND_STYLE)


def _draw_class_legend(figure: Figure, names: Sequence[str], font_size: float, palette: Palette) -> None:
    handles = [_build_legend_handle("o", color, "") for color in palette]
    spacing: Any = {"columnspacing": 1.0, "labelspacing": 0.25, "ncols": _count_columns(names, font_size)}
    legend = figure.legend(
        handles, [""] * len(names), loc="outside lower left", fontsize=font_size, **spacing, **LEGEND_STYLE
    )
    for text, name in zip(legend.get_texts(), names, strict=True):  # set here, a name may start with _ and contain $
        text.set_text(name)


def _build_legend_handle(marker: str, color: Any, label: str) -> Line2D:
    return Line2D([], [], linestyle="", marker=marker, color=color, markersize=6, label=label)
