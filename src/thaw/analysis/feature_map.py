"""Features of a data set on two axes: by PCA, and by t-SNE."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.textpath import TextPath
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE

from thaw.config.faults import Fault, UserFault
from thaw.data.fewer import UNUSED
from thaw.data.samples import Sample, Samples

MOST_POINTS = 5000
COMPONENTS = 50  # of PCA before t-SNE, as van der Maaten and Hinton 2008 did
PERPLEXITY = 30.0  # within the 5 to 50 that they found to make little difference
TOLD_BY_COLOUR, MOST_NAMED_CLASSES = 10, 120  # beyond the first, a class has a number too
MARKERS = {"train": "o", "val": "^", "test": "s", UNUSED: "D"}
INK = "#33404d"
LEGEND: dict[str, Any] = {"frameon": False, "labelcolor": INK, "handletextpad": 0.2}
LONGEST_TAG = 3  # characters; names of at most so many stand in the picture themselves
LABEL, LABEL_ABOVE = (0.036, 0.021), 0.012  # a label of 8 points, as shares of a panel's sides
GOLDEN = 0.618034  # of the hue circle between neighbours, which are often alike in name

Shades = Sequence[tuple[float, float, float]]


@dataclass(frozen=True)
class FeatureMap:
    """Of the samples at `positions`: `pca` and `tsne` float [shown, 2]; `shares` of the variance that PCA's axes hold;
    `perplexity` of t-SNE."""

    positions: np.ndarray
    pca: np.ndarray
    shares: tuple[float, float]
    tsne: np.ndarray
    perplexity: float


def feature_map(features: np.ndarray, seed: int, most: int = MOST_POINTS) -> FeatureMap:
    """Both maps of `features`, float32 [samples, width], the same for the same seed; of more than `most` samples a
    draw. t-SNE starts from PCA's axes (Kobak and Berens 2019), so that the two pictures resemble each other.

    Raises:
        UserFault: where features are not finite.
    """
    count = len(features)
    positions = np.sort(np.random.default_rng(seed).permutation(count)[:most])
    shown = np.asarray(features[positions], dtype=np.float64)
    if wrong := int((~np.isfinite(shown)).any(1).sum()):
        fault = Fault("features", f"{wrong} of {len(shown)} images have values that are not finite", "finite values")
        raise UserFault("no map can be drawn.", [fault])
    reduced, shares = _principal(shown, seed)
    perplexity = min(PERPLEXITY, (len(shown) - 1) / 3)
    return FeatureMap(positions, reduced[:, :2], shares, _tsne(reduced, perplexity, seed), perplexity)


def _principal(shown: np.ndarray, seed: int) -> tuple[np.ndarray, tuple[float, float]]:
    """float [shown, at least 2]; features of one value, or one alike in all images, have axes of zeros."""
    wanted = min(COMPONENTS, *shown.shape)
    reduced, shares = np.zeros((len(shown), max(2, wanted))), np.zeros(max(2, wanted))
    if np.ptp(shown, axis=0).any():
        method = PCA(wanted, random_state=seed)
        reduced[:, :wanted] = method.fit_transform(shown)
        shares[:wanted] = method.explained_variance_ratio_
    return reduced, (float(shares[0]), float(shares[1]))


def _tsne(reduced: np.ndarray, perplexity: float, seed: int) -> np.ndarray:
    start = reduced[:, :2] / max(reduced[:, 0].std(), 1e-12) * 1e-4
    method = TSNE(perplexity=perplexity, init=start.astype(np.float32), random_state=seed)
    found: np.ndarray = method.fit_transform(reduced)
    return found


def map_picture(maps: FeatureMap, samples: Samples, title: str) -> Figure:
    """PCA left, t-SNE right: colour is the class, shape the split. More than TOLD_BY_COLOUR classes have a number too,
    or their name if it is short, at the median of their images; those beyond MOST_NAMED_CLASSES are not named."""
    classes, shown = [_short(name) for name in samples.classes], [samples.samples[one] for one in maps.positions]
    shades, named = colours_of(len(classes)), len(classes) <= MOST_NAMED_CLASSES
    tags = _tags(classes) if len(classes) > TOLD_BY_COLOUR and named else []
    names = [f"{tag} {name}" for tag, name in zip(tags, classes, strict=True)] if tags and tags != classes else classes
    size = 7.5 if tags else 10
    rows = -(-len(classes) // _columns(names, size)) if named else 1
    figure = Figure(figsize=(12.6, 7.0 + 0.155 * rows), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    variance = ", ".join(f"{share:.0%}" for share in maps.shares)
    _draw(panels[0], maps.pca, shown, shades, tags, f"PCA: {variance} of the variance")
    _draw(panels[1], maps.tsne, shown, shades, tags, f"t-SNE: perplexity {maps.perplexity:.3g}")
    figure.suptitle(title, x=0.004, ha="left", fontsize=12, color=INK)
    _split_legend(figure, shown)
    if named:
        _class_legend(figure, names, size, shades)
    else:
        figure.supxlabel(f"{len(classes)} classes, too many to be named", fontsize=9, color=INK)
    return figure


def _tags(classes: Sequence[str]) -> list[str]:
    numbers = [str(number) for number in range(1, len(classes) + 1)]
    return list(classes) if max(map(len, classes)) <= LONGEST_TAG else numbers


def colours_of(classes: int) -> Shades:
    """One a class: matplotlib's ten, or hues around the circle in three lightnesses."""
    if classes <= TOLD_BY_COLOUR:
        return [matplotlib.colormaps["tab10"](number)[:3] for number in range(classes)]
    lightness = (0.38, 0.50, 0.64)
    return [colorsys.hls_to_rgb(number * GOLDEN % 1, lightness[number % 3], 0.75) for number in range(classes)]


def _draw(
    axes: Axes, places: np.ndarray, shown: Sequence[Sample], shades: Shades, tags: Sequence[str], title: str
) -> None:
    labels, splits = np.array([one.label for one in shown]), np.array([one.split for one in shown])
    order = np.random.default_rng(0).permutation(len(places))  # else the last class would lie on top of all others
    size = float(np.clip(16_000 / len(places), 9, 42))
    colours: Any = np.array(shades)[labels]
    for split in MARKERS:
        ours = order[splits[order] == split]
        x, y = places[ours].T
        style: Any = {"marker": MARKERS[split], "alpha": 0.75, "linewidths": 0.3, "edgecolors": "w"}
        axes.scatter(x, y, s=size, c=colours[ours], **style)
    if tags:
        _name_classes(axes, places, labels, tags, shades)
    axes.set_title(title, loc="left", fontsize=11, color=INK)
    axes.set(xticks=[], yticks=[])
    for spine in axes.spines.values():
        spine.set_color("#d5dade")


def _name_classes(axes: Axes, places: np.ndarray, labels: np.ndarray, names: Sequence[str], shades: Shades) -> None:
    """Each class' name, or its number, beside the median of its images."""
    there = np.unique(labels)
    medians = np.stack([np.median(places[labels == label], axis=0) for label in there])
    low, reach = places.min(0), np.maximum(np.ptp(places, axis=0), 1e-12)
    spots = apart((medians - low) / reach + (0, LABEL_ABOVE)) * reach + low
    for label, (x, y) in zip(there, spots, strict=True):
        text = axes.text(x, y, names[label], fontsize=8, fontweight="bold", ha="center", va="center", zorder=5)
        text.set_parse_math(False)
        text.set_color(tuple(0.6 * shade for shade in shades[label]))
        text.set_path_effects([withStroke(linewidth=2.2, foreground="white")])


def apart(spots: np.ndarray, size: tuple[float, float] = LABEL, rounds: int = 60) -> np.ndarray:
    """float [labels, 2], shares of a panel's sides: `spots` pushed from each other until labels of `size` overlap no
    more, or `rounds` are over."""
    spots = spots + np.random.default_rng(0).normal(0, 1e-4, spots.shape)  # those at one spot need a direction
    for _ in range(rounds):
        between = (spots[:, None] - spots[None]) / size
        distance = np.abs(between).max(2)
        near = np.where(distance < 1, 0.25 * (1 - distance), 0)
        np.fill_diagonal(near, 0)
        if not near.any():
            break
        spots = spots + (near[..., None] * between / np.maximum(distance, 1e-6)[..., None]).sum(1) * size
    return spots


def _columns(names: Sequence[str], size: float) -> int:
    """As many as names in letters of `size` points leave room for on 12.2 inches; mark and gap take 0.4."""
    widths = [TextPath((0, 0), name.replace("$", "S"), size=size).get_extents().width / 72 for name in names]
    return max(1, min(len(names), int(12.2 / (0.4 + max(widths)))))


def _split_legend(figure: Figure, shown: Sequence[Sample]) -> None:
    there = {one.split for one in shown}
    shapes = [_mark(MARKERS[split], "#7d8790", split) for split in MARKERS if split in there]
    figure.legend(handles=shapes, loc="outside upper right", ncols=3, fontsize=9, **LEGEND)


def _class_legend(figure: Figure, names: Sequence[str], size: float, shades: Shades) -> None:
    marks = [_mark("o", shade, "") for shade in shades]
    spaces: Any = {"columnspacing": 1.0, "labelspacing": 0.25, "ncols": _columns(names, size)}
    legend = figure.legend(marks, [""] * len(names), loc="outside lower left", fontsize=size, **spaces, **LEGEND)
    for text, name in zip(legend.get_texts(), names, strict=True):  # set here, a name may begin with _ and hold $
        text.set_parse_math(False)
        text.set_text(name)


def _mark(shape: str, colour: Any, text: str) -> Line2D:
    return Line2D([], [], linestyle="", marker=shape, color=colour, markersize=6, label=text)


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
