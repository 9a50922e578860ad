"""Images of another kind and images that show nothing."""

from __future__ import annotations

import numpy as np
import pytest

from tests.auditing.synthetic import make_data
from thaw.auditing.neighbors import find_neighbors
from thaw.auditing.outliers import find_blank_images, find_outliers


@pytest.mark.parametrize("num_planted", [1, 4])
def test_images_of_another_kind_come_first(num_planted: int) -> None:
    """Also if they resemble each other."""
    features = make_data(300).features
    planted = -features[:1] + np.random.default_rng(0).normal(0, 0.1, (num_planted, 24))
    neighbors = find_neighbors(np.concatenate([features, planted.astype(np.float32)]))
    outliers = find_outliers(neighbors)
    assert sorted(outlier.position for outlier in outliers[:num_planted]) == [*range(300, 300 + num_planted)]
    assert all(outlier.deviation > 3 for outlier in outliers[:num_planted])
    assert len(outliers) <= 6


def test_images_of_one_kind_give_at_most_two_percent() -> None:
    outliers = find_outliers(make_data(300).neighbors)
    assert len(outliers) <= 6
    assert all(2.25 <= outlier.deviation < 3 for outlier in outliers)


def test_few_and_equal_images_give_none() -> None:
    assert find_outliers(make_data(20).neighbors) == ()
    assert find_outliers(find_neighbors(np.ones((60, 4), np.float32))) == ()


def test_uniform_images_are_blank() -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
    faint = np.clip(128 + rng.normal(0, 2, (200, 100, 3)), 0, 255).astype(np.uint8)
    black, blue = np.zeros((9, 9, 3), np.uint8), np.full((9, 9, 3), (0, 0, 200), np.uint8)
    blank = find_blank_images([noise, black, faint, blue, np.tile(np.uint8([[[0], [30]]]), (9, 9, 3))])
    assert [image.position for image in blank] == [1, 3, 2]
    assert blank[-1].std == pytest.approx(2, abs=0.2)
