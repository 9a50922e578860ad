"""Features on two axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from thaw.config.errors import UserError
from thaw.data.samples import Sample, Samples
from thaw.visualization.plots.embedding import (
    LABEL_SIZE,
    FeatureEmbedding,
    build_palette,
    compute_embedding,
    plot_embedding,
    repel_labels,
)


def clusters(classes: int, each: int, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    """Features around a centre a class, and labels."""
    dice, labels = np.random.default_rng(0), np.repeat(np.arange(classes), each)
    centres = dice.normal(0, 8, (classes, width))
    return (centres[labels] + dice.normal(0, 1, (len(labels), width))).astype(np.float32), labels


def table(labels: np.ndarray, names: list[str]) -> Samples:
    splits = ("train", "val", "test")
    rows = tuple(Sample(f"{number}.png", int(label), splits[number % 3]) for number, label in enumerate(labels))
    return Samples(Path("/data"), tuple(names), rows, (), "0" * 16)


def kept_together(places: np.ndarray, labels: np.ndarray) -> float:
    """The share of points whose nearest neighbour is of their class."""
    distances = np.linalg.norm(places[:, None] - places[None], axis=2)
    np.fill_diagonal(distances, np.inf)
    return float((labels[distances.argmin(1)] == labels).mean())


def test_what_is_apart_in_the_features_is_apart_on_both_maps() -> None:
    features, labels = clusters(3, 20)
    maps = compute_embedding(features, 0)
    assert kept_together(maps.pca, labels) > 0.95
    assert kept_together(maps.tsne, labels) > 0.95


def test_pca_holds_the_variance_that_it_says() -> None:
    features, _ = clusters(3, 20)
    maps = compute_embedding(features, 0)
    centred = features - features.mean(0)
    shares = np.linalg.svd(centred, compute_uv=False) ** 2 / (centred**2).sum()
    np.testing.assert_allclose(maps.explained_variance_ratio, shares[:2], rtol=1e-4)
    np.testing.assert_allclose(maps.pca.var(0) / features.var(0).sum(), shares[:2], rtol=1e-4)


def test_a_map_is_the_same_for_the_same_seed() -> None:
    features, _ = clusters(3, 12)
    first, second = compute_embedding(features, 3), compute_embedding(features, 3)
    assert np.array_equal(first.pca, second.pca)
    assert np.array_equal(first.tsne, second.tsne)


def test_of_too_many_points_a_draw_of_the_seed_is_shown() -> None:
    features, _ = clusters(3, 20)
    drawn = compute_embedding(features, 0, max_points=24).positions
    assert len(set(drawn.tolist())) == 24
    assert drawn.tolist() == compute_embedding(features, 0, max_points=24).positions.tolist()
    assert drawn.tolist() != compute_embedding(features, 1, max_points=24).positions.tolist()


@pytest.mark.parametrize(
    "features",
    [np.ones((6, 4)), np.arange(6.0)[:, None], np.arange(6.0).reshape(3, 2)],
    ids=["all alike", "one value", "three images"],
)
def test_odd_features_still_have_a_map(features: np.ndarray) -> None:
    maps = compute_embedding(features.astype(np.float32), 0)
    assert maps.pca.shape == maps.tsne.shape == (len(features), 2)
    assert np.isfinite(maps.pca).all()
    assert np.isfinite(maps.tsne).all()
    plot_embedding(maps, table(np.arange(len(features)) % 2, ["ants", "bees"]), "odd").draw_without_rendering()


def test_features_that_are_not_finite_are_told() -> None:
    features, _ = clusters(2, 5)
    features[3, 0] = np.nan
    with pytest.raises(UserError, match="1 of 10 images"):
        compute_embedding(features, 0)


def words_in(names: list[str]) -> set[str]:
    """All that is written in the picture of a map of two images a class."""
    from matplotlib.text import Text

    features, labels = clusters(len(names), 3, width=4)
    maps = FeatureEmbedding(np.arange(len(labels)), features[:, :2], (0.5, 0.3), features[:, 2:], 30.0)
    picture = plot_embedding(maps, table(labels, names), "title")
    picture.draw_without_rendering()
    return {text.get_text() for text in picture.findobj(Text)}


def test_few_classes_and_the_splits_have_a_legend() -> None:
    words = words_in(["ants", "bees"])
    assert {"ants", "bees", "train", "val", "test"} <= words
    assert "1" not in words


def test_classes_that_colour_cannot_tell_are_numbered_in_the_map_and_the_legend() -> None:
    words = words_in([f"breed_{number}" for number in range(100)])
    assert {"1", "57", "100", "1 breed_0", "100 breed_99"} <= words


def test_names_are_written_as_they_are() -> None:
    """Not taken for formulas, nor left out."""
    assert {"_private", "$x^$", "a_{b"} <= words_in(["_private", "$x^$", "a_{b"])


def test_a_legend_of_wide_names_stays_within_the_picture() -> None:
    names = [f"{'W' * 20}{number}" for number in range(120)]
    features, labels = clusters(len(names), 1, width=4)
    maps = FeatureEmbedding(np.arange(len(labels)), features[:, :2], (0.5, 0.3), features[:, 2:], 30.0)
    picture = plot_embedding(maps, table(labels, names), "title")
    picture.draw_without_rendering()
    assert all(one.get_window_extent().x1 <= picture.bbox.x1 for one in picture.legends)


def test_short_names_stand_in_the_map_themselves() -> None:
    words = words_in(list("ABCDEFGHIJKL"))
    assert {"A", "L"} <= words
    assert not words & {"1", "12", "1 A"}


def test_classes_beyond_counting_are_not_named() -> None:
    words = words_in([f"species_{number}" for number in range(150)])
    assert "150 classes, too many to be named" in words
    assert not words & {"1", "1 species_0"}


def test_labels_at_one_spot_are_pushed_apart_and_lone_ones_stay() -> None:
    spots = np.concatenate([np.full((12, 2), 0.5), [[0.0, 0.0]]])
    moved = repel_labels(spots)
    between = np.abs(moved[:, None] - moved[None]) / LABEL_SIZE
    overlaps = (between < 0.8).all(2)
    assert overlaps.sum() == len(spots)  # each with itself alone
    np.testing.assert_allclose(moved[-1], 0, atol=1e-3)


@pytest.mark.parametrize("classes", [2, 10, 11, 100])
def test_each_class_has_a_colour_of_its_own(classes: int) -> None:
    assert len({tuple(np.round(one, 3)) for one in build_palette(classes)}) == classes
