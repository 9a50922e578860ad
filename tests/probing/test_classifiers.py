"""Classifiers of features, held against scikit-learn's own predictions, and the choice among them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.svm import LinearSVC

from tests.probing.test_heads import clusters
from thaw.probing import classifiers
from thaw.probing.classifiers import (
    count_votes,
    fit_linear_svms,
    fit_logistic_regressions,
    fit_nearest_centroid,
    fit_nearest_neighbors,
)
from thaw.probing.trial import (
    FeatureSet,
    LinearModel,
    ProbeTrial,
    compute_cross_entropy,
    select_best,
    select_most_accurate,
)


def split(classes: int) -> tuple[FeatureSet, FeatureSet]:
    data = clusters(40 * classes, 6, classes)
    half = 20 * classes
    return FeatureSet(data.features[:half], data.labels[:half]), FeatureSet(data.features[half:], data.labels[half:])


def guesses(trial: ProbeTrial, val: FeatureSet) -> np.ndarray:
    assert trial.linear is not None
    return trial.linear.compute_logits(val.features).argmax(1)


@pytest.mark.parametrize("classes", [2, 5])
def test_the_nearest_centroid_is_linear(classes: int) -> None:
    train, val = split(classes)
    trial = fit_nearest_centroid(train, val, classes)
    theirs = NearestCentroid().fit(train.features, train.labels)
    assert (guesses(trial, val) == theirs.predict(val.features)).all()
    assert trial.accuracy == pytest.approx(theirs.score(val.features, val.labels))


def test_centroids_of_one_image_each_have_finite_logits() -> None:
    train = FeatureSet(np.eye(3, dtype=np.float32), np.arange(3))
    assert fit_nearest_centroid(train, train, 3).accuracy == 1.0


@pytest.mark.parametrize("classes", [2, 5])
def test_logistic_regression_gives_the_probabilities_of_scikit_learn(classes: int) -> None:
    train, val = split(classes)
    trials = {one.setting["C"]: one for one in fit_logistic_regressions(train, val)}
    theirs = LogisticRegression(C=0.01, max_iter=1000).fit(train.features, train.labels).predict_proba(val.features)
    linear = trials[0.01].linear
    assert linear is not None
    ours = torch.from_numpy(linear.compute_logits(val.features)).softmax(1).numpy()
    assert np.allclose(ours, theirs, atol=1e-4)
    assert trials[0.01].loss == pytest.approx(log_loss(val.labels, theirs), rel=1e-3)
    assert not trials[0.01].remark


@pytest.mark.parametrize("classes", [2, 5])
def test_the_linear_svm_guesses_as_scikit_learn(classes: int) -> None:
    train, val = split(classes)
    last = list(fit_linear_svms(train, val))[-1]
    theirs = LinearSVC(C=last.setting["C"], random_state=0).fit(train.features, train.labels)
    assert (guesses(last, val) == theirs.predict(val.features)).mean() > 0.99


def test_weaker_regularisation_is_not_tried_once_it_only_does_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "LOGISTIC_C_VALUES", (0.1, 1e4, 1e5, 1e6, 1e-1))
    outlier = (1, 0.3)  # labelled 0 among those of label 1: only its second feature can tell
    train = FeatureSet(np.float32([(-1, 0)] * 10 + [(1, 0)] * 10 + [outlier]), np.array([0] * 10 + [1] * 10 + [0]))
    val = FeatureSet(np.float32([(-1, 0), (1, 0), (1, 1)]), np.array([0, 1, 1]))
    assert [one.accuracy for one in fit_logistic_regressions(train, val)] == pytest.approx([1.0, 2 / 3, 2 / 3])


def test_a_solver_that_did_not_converge_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "MAX_ITERATIONS", 1)
    assert "stopped after 1 iterations" in [one.remark for one in fit_logistic_regressions(*split(5))]


def test_k_nn_guesses_as_scikit_learn_where_no_vote_is_tied() -> None:
    train, val = split(2)
    for one in fit_nearest_neighbors(train, val, 2):
        if int(one.setting["k"]) % 2:
            theirs = KNeighborsClassifier(int(one.setting["k"]), metric="cosine").fit(train.features, train.labels)
            assert one.accuracy == pytest.approx(theirs.score(val.features, val.labels))
        assert one.linear is None


def test_k_is_at_most_the_number_of_train_images() -> None:
    train, val = split(2)
    few = FeatureSet(train.features[:4], train.labels[:4])
    assert [one.setting["k"] for one in fit_nearest_neighbors(few, val, 2)] == [4, 3, 1]


def test_a_tied_vote_goes_to_the_nearer_images() -> None:
    assert count_votes(np.array([[2, 0], [0, 2], [1, 1]]), 3).argmax(1).tolist() == [2, 0, 1]
    assert count_votes(np.array([[0] + [1] * 2 + [0] * 2 + [1] * 3]), 2).argmax(1).tolist() == [1]  # more is more


def trial(accuracy: float, loss: float, name: str, is_head: bool = True) -> ProbeTrial:
    return ProbeTrial(name, {}, accuracy, loss, 0.0, LinearModel(np.eye(2), np.zeros(2)) if is_head else None)


def test_accuracy_decides_then_loss_then_what_was_tried_first() -> None:
    assert select_most_accurate([trial(0.8, 0.1, "low loss"), trial(0.9, 0.5, "right")]).method == "right"
    assert select_most_accurate([trial(0.9, 0.5, "high"), trial(0.9, 0.4, "low")]).method == "low"
    assert select_most_accurate([trial(0.9, 0.4, "strong"), trial(0.9, 0.4, "weak")]).method == "strong"
    assert select_most_accurate([trial(0.9, float("nan"), "diverged"), trial(0.9, 9.0, "finite")]).method == "finite"


def test_only_what_can_become_a_head_is_chosen() -> None:
    assert select_best([trial(1.0, float("nan"), "k-NN", is_head=False), trial(0.5, 1.0, "linear")]).method == "linear"


def test_cross_entropy_survives_logits_of_any_size() -> None:
    assert compute_cross_entropy(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 1])) == 0.0
    assert compute_cross_entropy(np.zeros((1, 4)), np.array([2])) == pytest.approx(np.log(4))
