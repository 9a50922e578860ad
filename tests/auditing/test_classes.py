"""Classes that cannot be told apart."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from tests.auditing.synthetic import make_data
from thaw.auditing.classes import find_inseparable_classes
from thaw.auditing.out_of_fold import OutOfFold


def test_a_class_under_two_names_is_inseparable() -> None:
    data = make_data()
    labels = data.labels.copy()
    labels[(labels == 2) & (np.random.default_rng(0).random(200) < 0.5)] = 4
    (pair,) = find_inseparable_classes(data.predict(labels), labels)
    assert (pair.first, pair.second, pair.num_images, pair.is_inseparable) == (2, 4, 50, True)
    assert pair.separation < 0.55
    assert pair.p_value > 0.05
    assert pair.num_mixed > 10
    assert pair.other_mixed < 0.02


def test_classes_that_are_apart_give_nothing() -> None:
    data = make_data()
    assert find_inseparable_classes(data.predict(), data.labels) == ()


def test_classes_that_are_a_group_each_cannot_be_judged() -> None:
    data = make_data(100)
    assert find_inseparable_classes(data.predict(groups=data.labels), data.labels) == ()


def test_a_pair_that_is_mixed_more_than_others_is_listed_but_not_inseparable() -> None:
    labels = np.repeat(np.arange(4), 100)
    probabilities = 0.05 + 0.8 * np.eye(4)[labels]
    for start, other in ((0, 1), (100, 0)):  # 20 of each of the first two classes look like the other
        probabilities[start : start + 20] = 0.05 + 0.8 * np.eye(4)[[other] * 20]
    probabilities += np.random.default_rng(0).uniform(0, 0.01, probabilities.shape)
    predictions = OutOfFold(probabilities, np.zeros(400), np.ones(400, dtype=bool))
    (pair,) = find_inseparable_classes(predictions, labels)
    assert (pair.first, pair.second, pair.num_mixed, pair.is_inseparable) == (0, 1, 40, False)


def test_the_separation_is_the_area_under_the_roc_curve_with_its_interval() -> None:
    rng = np.random.default_rng(3)
    labels = np.array([0] * 40 + [1] * 60)
    first = np.clip(rng.normal(0.5, 0.2, 100), 0.01, 0.99)
    predictions = OutOfFold(np.stack([first, 1 - first], 1), np.zeros(100), np.ones(100, dtype=bool))
    (pair,) = find_inseparable_classes(predictions, labels)
    area = roc_auc_score(labels == 0, first)
    assert pair.separation == pytest.approx(area)
    q1, q2 = area / (2 - area), 2 * area**2 / (1 + area)
    error = np.sqrt((area * (1 - area) + 39 * (q1 - area**2) + 59 * (q2 - area**2)) / 2400)
    assert pair.separation_ci95 == pytest.approx((area - norm.ppf(0.975) * error, area + norm.ppf(0.975) * error))
