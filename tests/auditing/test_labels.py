"""Probable wrong labels: confident learning, and the recall on planted ones."""

from __future__ import annotations

import numpy as np
import pytest
from cleanlab.count import compute_confident_joint

from tests.auditing.synthetic import SyntheticData, make_data
from thaw.auditing.labels import (
    LabelCheck,
    check_labels,
    count_wrong_labels,
    estimate_confident_joint,
    find_likely_labels,
    measure_planted_recall,
    rank_suspects,
)
from thaw.auditing.out_of_fold import OutOfFold

WRONG = [3, 50, 121]


def check_data(data: SyntheticData, labels: np.ndarray) -> LabelCheck:
    return check_labels(data.projected, data.neighbors, labels, data.singles, data.predict(labels))


@pytest.fixture(scope="module")
def data() -> SyntheticData:
    return make_data()


@pytest.fixture(scope="module")
def wrong_labels(data: SyntheticData) -> np.ndarray:
    labels = data.labels.copy()
    labels[WRONG] = (labels[WRONG] + 1) % 4
    return labels


@pytest.fixture(scope="module")
def label_check(data: SyntheticData, wrong_labels: np.ndarray) -> LabelCheck:
    return check_data(data, wrong_labels)


def test_wrong_labels_come_first_with_the_right_label(data: SyntheticData, label_check: LabelCheck) -> None:
    first = label_check.suspects[: len(WRONG)]
    assert sorted(suspect.position for suspect in first) == WRONG
    assert all(suspect.likely_label == data.labels[suspect.position] for suspect in first)
    assert all(suspect.likely_probability > 0.7 > 0.3 > suspect.label_probability for suspect in first)
    assert len(label_check.suspects) <= len(WRONG) + 2


def test_right_labels_that_are_easy_give_no_suspects(data: SyntheticData) -> None:
    assert len(rank_suspects(data.predict(), data.labels)) == 0


def test_the_recall_is_measured_on_planted_labels(label_check: LabelCheck) -> None:
    planted = label_check.planted
    assert planted is not None
    assert (planted.num_planted, planted.num_draws) == (10, 10)
    assert planted.recall > 0.8
    assert planted.top_precision > 0.7
    assert f"of 10 planted wrong labels 9 are among the {planted.num_listed:.0f} images" in planted.describe()


def test_the_measured_recall_is_low_where_labels_cannot_be_predicted() -> None:
    data = make_data(class_scale=0.0)
    predictions = data.predict()
    planted = measure_planted_recall(
        data.projected, data.neighbors, data.labels, data.singles, predictions.probabilities
    )
    assert planted is not None
    assert planted.recall < 0.35


def test_a_second_check_gives_the_same(data: SyntheticData, wrong_labels: np.ndarray, label_check: LabelCheck) -> None:
    assert check_data(data, wrong_labels) == label_check


@pytest.mark.parametrize("seed", range(3))
def test_the_confident_joint_is_that_of_cleanlab(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 5, 300)
    probabilities = rng.dirichlet(np.full(5, 0.5), 300) + 0.5 * np.eye(5)[labels]
    probabilities /= probabilities.sum(1, keepdims=True)
    predictions = OutOfFold(probabilities, np.zeros(300), np.ones(300, dtype=bool))
    joint = estimate_confident_joint(predictions, labels, max_threshold=1.0)
    reference = compute_confident_joint(labels, probabilities, calibrate=True)  # rounded
    assert np.abs(joint - reference).max() <= 1
    assert np.allclose(joint.sum(1), np.bincount(labels))
    assert count_wrong_labels(joint) == pytest.approx(reference.sum() - np.trace(reference), abs=3)
    assert count_wrong_labels(joint) > 20


def test_an_image_whose_class_is_in_no_other_fold_is_no_suspect(data: SyntheticData) -> None:
    labels = data.labels.copy()
    labels[7] = 4
    predictions = data.predict(labels)
    assert np.flatnonzero(~predictions.is_predictable).tolist() == [7]
    assert 7 not in rank_suspects(predictions, labels)


def test_the_likely_label_is_never_the_label() -> None:
    probabilities = np.array([[0.9, 0.06, 0.04], [0.2, 0.1, 0.7]])
    assert find_likely_labels(probabilities, np.array([0, 1])).tolist() == [1, 2]


def test_no_label_is_planted_among_very_few_images() -> None:
    data = make_data(8, num_classes=2)
    assert check_data(data, data.labels).planted is None
