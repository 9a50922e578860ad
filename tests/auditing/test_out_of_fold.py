"""Predictions for images by classifiers that were fitted to others."""

from __future__ import annotations

import numpy as np
import pytest

from tests.auditing.synthetic import SyntheticData, make_data
from thaw.auditing.out_of_fold import assign_folds, draw_stratified, merge_groups, project_features


def test_predictions_are_probabilities_and_right_where_classes_are_apart() -> None:
    data = make_data()
    predictions = data.predict()
    assert np.allclose(predictions.probabilities.sum(1), 1)
    assert predictions.compute_accuracy(data.labels) > 0.97
    assert predictions.is_predictable.all()


def test_labels_without_meaning_cannot_be_predicted() -> None:
    data = make_data()
    labels = np.random.default_rng(1).integers(0, 4, len(data.labels))
    assert data.predict(labels).compute_accuracy(labels) < 0.35


def test_no_classifier_sees_the_group_of_an_image() -> None:
    """Copies with random labels: one by one they confirm each other, as a group they do not."""
    labels, groups = np.repeat(np.random.default_rng(1).integers(0, 2, 24), 12), np.arange(288) // 12
    data = SyntheticData(np.repeat(make_data(24, class_scale=0).features, 12, axis=0), labels, groups)
    assert data.predict().compute_accuracy(labels) > 0.85
    assert data.predict(groups=groups).compute_accuracy(labels) < 0.65


def test_folds_are_stratified_and_keep_groups_together() -> None:
    labels, groups = np.arange(120) // 4 % 3, np.arange(120) // 4
    folds = assign_folds(labels, groups)
    assert all(len({*folds[groups == group]}) == 1 for group in range(30))
    assert all(np.bincount(labels[folds == fold]).tolist() == [8, 8, 8] for fold in range(5))


def test_classes_of_one_image_and_few_groups_do_not_stop_the_folds() -> None:
    assert len({*assign_folds(np.arange(7), np.arange(7))}) == 5
    assert len({*assign_folds(np.array([0, 0, 1, 1]), np.array([0, 0, 1, 2]))}) == 3
    assert assign_folds(np.array([0, 1]), np.array([0, 0])).tolist() == [0, 0]


def test_an_image_that_is_alone_in_its_class_is_not_predictable() -> None:
    data = make_data(60)
    labels = data.labels.copy()
    labels[7] = 4
    assert np.flatnonzero(~data.predict(labels).is_predictable).tolist() == [7]


def test_pairs_merge_groups() -> None:
    groups = merge_groups(np.array([0, 1, 2, 2, 3]), np.array([[0, 2], [4, 4]]))
    assert groups[0] == groups[2] == groups[3]
    assert len({*groups}) == 3
    assert merge_groups(np.arange(3), np.zeros((0, 2), dtype=np.int64)).tolist() == [0, 1, 2]


def test_projection_keeps_the_directions_of_most_variance() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(size=(80, 3)) @ rng.normal(size=(3, 40)) + 1e-3 * rng.normal(size=(80, 40))
    features[:, 5] = 1.0  # constant
    projected = project_features(features.astype(np.float32), max_axes=3)
    std = features.std(0)
    standardized = (features - features.mean(0)) / np.where(std > 0, std, 1)
    assert projected.shape == (80, 3)
    assert np.allclose(projected @ projected.T, standardized @ standardized.T, atol=0.2)


def test_a_stratified_draw_keeps_every_class() -> None:
    labels = np.array([0] * 95 + [1] * 5)
    positions = draw_stratified(np.arange(100), labels, 20)
    assert np.bincount(labels[positions]).tolist() == [19, 1]
    assert draw_stratified(np.arange(100), labels, 100).tolist() == [*range(100)]


def test_very_many_groups_are_split_fast_and_kept_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("thaw.auditing.out_of_fold.MAX_EXACT_GROUPS", 20)
    labels, groups = np.arange(120) // 4 % 3, np.arange(120) // 4
    folds = assign_folds(labels, groups)
    assert all(len({*folds[groups == group]}) == 1 for group in range(30))
    assert all(np.bincount(labels[folds == fold]).tolist() == [8, 8, 8] for fold in range(5))
