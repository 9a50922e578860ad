"""Features in two dimensions, by PCA and t-SNE."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.data.tables import build_sample_table
from thaw.config.errors import UserError
from thaw.data.sample_table import Sample
from thaw.data.samples import Samples
from thaw.visualization.plots.embedding import (
    LABEL_SIZE,
    FeatureEmbedding,
    build_palette,
    compute_embedding,
    plot_embedding,
    repel_labels,
)


def build_clusters(num_classes: int, images_per_class: int, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Return features around one center per class, and labels."""
    rng, labels = np.random.default_rng(0), np.repeat(np.arange(num_classes), images_per_class)
    centers = rng.normal(0, 8, (num_classes, width))
    return (centers[labels] + rng.normal(0, 1, (len(labels), width))).astype(np.float32), labels


def build_samples(labels: np.ndarray, names: list[str]) -> Samples:
    splits = ("train", "val", "test")
    rows = [Sample(f"{number}.png", int(label), splits[number % 3]) for number, label in enumerate(labels)]
    return Samples(Path("/data"), build_sample_table(names, rows), {})


def neighbor_accuracy(points: np.ndarray, labels: np.ndarray) -> float:
    """Return the fraction of points whose nearest neighbor is of their class."""
    distances = np.linalg.norm(points[:, None] - points[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return float((labels[distances.argmin(1)] == labels).mean())


def test_classes_that_features_separate_are_separate_in_both_plots() -> None:
    features, labels = build_clusters(3, 20)
    embedding = compute_embedding(features, 0)
    assert neighbor_accuracy(embedding.pca, labels) > 0.95
    assert neighbor_accuracy(embedding.tsne, labels) > 0.95


def test_pca_reports_the_variance_of_its_axes() -> None:
    features, _ = build_clusters(3, 20)
    embedding = compute_embedding(features, 0)
    centered = features - features.mean(0)
    ratios = np.linalg.svd(centered, compute_uv=False) ** 2 / (centered**2).sum()
    np.testing.assert_allclose(embedding.explained_variance_ratio, ratios[:2], rtol=1e-4)
    np.testing.assert_allclose(embedding.pca.var(0) / features.var(0).sum(), ratios[:2], rtol=1e-4)


def test_the_same_seed_gives_the_same_embedding() -> None:
    features, _ = build_clusters(3, 12)
    first, second = compute_embedding(features, 3), compute_embedding(features, 3)
    assert np.array_equal(first.pca, second.pca)
    assert np.array_equal(first.tsne, second.tsne)


def test_the_seed_draws_the_points_to_show_of_too_many() -> None:
    features, _ = build_clusters(3, 20)
    positions = compute_embedding(features, 0, max_points=24).positions
    assert len(set(positions.tolist())) == 24
    assert positions.tolist() == compute_embedding(features, 0, max_points=24).positions.tolist()
    assert positions.tolist() != compute_embedding(features, 1, max_points=24).positions.tolist()


@pytest.mark.parametrize(
    "features",
    [np.ones((6, 4)), np.arange(6.0)[:, None], np.arange(6.0).reshape(3, 2)],
    ids=["all alike", "one value", "three images"],
)
def test_degenerate_features_have_an_embedding(features: np.ndarray) -> None:
    embedding = compute_embedding(features.astype(np.float32), 0)
    assert embedding.pca.shape == embedding.tsne.shape == (len(features), 2)
    assert np.isfinite(embedding.pca).all()
    assert np.isfinite(embedding.tsne).all()
    plot_embedding(
        embedding, build_samples(np.arange(len(features)) % 2, ["ants", "bees"]), "odd"
    ).draw_without_rendering()


def test_features_that_are_not_finite_are_an_error() -> None:
    features, _ = build_clusters(2, 5)
    features[3, 0] = np.nan
    with pytest.raises(UserError, match="1 of 10 images"):
        compute_embedding(features, 0)


def collect_texts(names: list[str]) -> set[str]:
    """Return all texts in the plot of three images per class."""
    from matplotlib.text import Text

    features, labels = build_clusters(len(names), 3, width=4)
    embedding = FeatureEmbedding(np.arange(len(labels)), features[:, :2], (0.5, 0.3), features[:, 2:], 30.0)
    figure = plot_embedding(embedding, build_samples(labels, names), "title")
    figure.draw_without_rendering()
    return {text.get_text() for text in figure.findobj(Text)}


def test_few_classes_and_the_splits_have_a_legend() -> None:
    texts = collect_texts(["ants", "bees"])
    assert {"ants", "bees", "train", "val", "test"} <= texts
    assert "1" not in texts


def test_more_classes_than_colors_are_numbered_in_the_plot_and_the_legend() -> None:
    texts = collect_texts([f"breed_{number}" for number in range(100)])
    assert {"1", "57", "100", "1 breed_0", "100 breed_99"} <= texts


def test_names_are_neither_parsed_as_formulas_nor_hidden() -> None:
    assert {"_private", r"\$x^\$", "a_{b"} <= collect_texts(["_private", "$x^$", "a_{b"])


def test_a_legend_of_wide_names_stays_within_the_figure() -> None:
    names = [f"{'W' * 20}{number}" for number in range(120)]
    features, labels = build_clusters(len(names), 1, width=4)
    embedding = FeatureEmbedding(np.arange(len(labels)), features[:, :2], (0.5, 0.3), features[:, 2:], 30.0)
    figure = plot_embedding(embedding, build_samples(labels, names), "title")
    figure.draw_without_rendering()
    assert all(legend.get_window_extent().x1 <= figure.bbox.x1 for legend in figure.legends)


def test_short_names_are_written_into_the_plot() -> None:
    texts = collect_texts(list("ABCDEFGHIJKL"))
    assert {"A", "L"} <= texts
    assert not texts & {"1", "12", "1 A"}


def test_very_many_classes_are_not_named() -> None:
    texts = collect_texts([f"species_{number}" for number in range(150)])
    assert "150 classes, too many to be named" in texts
    assert not texts & {"1", "1 species_0"}


def test_labels_at_the_same_position_are_pushed_apart_and_others_stay() -> None:
    positions = np.concatenate([np.full((12, 2), 0.5), [[0.0, 0.0]]])
    new_positions = repel_labels(positions)
    offsets = np.abs(new_positions[:, None] - new_positions[None]) / LABEL_SIZE
    overlaps = (offsets < 0.8).all(2)
    assert overlaps.sum() == len(positions)  # each overlaps itself only
    np.testing.assert_allclose(new_positions[-1], 0, atol=1e-3)


@pytest.mark.parametrize("num_classes", [2, 10, 11, 100])
def test_each_class_has_its_own_color(num_classes: int) -> None:
    assert len({tuple(np.round(color, 3)) for color in build_palette(num_classes)}) == num_classes
