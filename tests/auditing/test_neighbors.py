"""Nearest images in feature space."""

from __future__ import annotations

import numpy as np

from tests.auditing.synthetic import make_data
from thaw.auditing.neighbors import find_neighbors


def test_neighbors_are_the_nearest_by_angle_without_the_image_itself() -> None:
    features = make_data(60).features
    neighbors = find_neighbors(features, num_neighbors=5)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    similarities = unit @ unit.T
    np.fill_diagonal(similarities, -2)
    assert np.array_equal(neighbors.indices, np.argsort(-similarities, axis=1)[:, :5])
    expected = np.sqrt(2 + 2 * np.sort(-similarities, axis=1)[:, :5])
    assert np.allclose(neighbors.distances, expected, atol=1e-3)


def test_an_image_is_not_its_own_neighbor_even_if_it_has_copies() -> None:
    neighbors = find_neighbors(np.repeat(make_data(10).features, 3, axis=0), num_neighbors=4)
    assert (neighbors.indices != np.arange(30)[:, None]).all()
    for index, row in enumerate(neighbors.indices.tolist()):
        copies = set(range(index // 3 * 3, index // 3 * 3 + 3)) - {index}
        assert copies == set(row[:2])


def test_many_images_are_searched_among_a_sample() -> None:
    neighbors = find_neighbors(make_data(100).features, num_neighbors=5, max_references=40)
    assert neighbors.is_sampled
    assert neighbors.indices.shape == (100, 5)
    assert set(np.unique(neighbors.indices)) <= set(neighbors.references)
    assert (neighbors.indices != np.arange(100)[:, None]).all()
