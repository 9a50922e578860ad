"""Classifiers of features compared with scikit-learn's own predictions, and the choice among them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.svm import LinearSVC

from tests.probing.test_linear_heads import build_clusters
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
    ProbeData,
    ProbeTrial,
    compute_cross_entropy,
    select_best,
)


def build_data(num_classes: int) -> ProbeData:
    clusters, half = build_clusters(40 * num_classes, 6, num_classes), 20 * num_classes
    train = FeatureSet(clusters.features[:half], clusters.labels[:half])
    val = FeatureSet(clusters.features[half:], clusters.labels[half:])
    return ProbeData(train, val, num_classes)


def predict(trial: ProbeTrial, val: FeatureSet) -> np.ndarray:
    assert trial.linear is not None
    return trial.linear.compute_logits(val.features).argmax(1)


@pytest.mark.parametrize("num_classes", [2, 5])
def test_the_linear_nearest_centroid_predicts_as_scikit_learn(num_classes: int) -> None:
    data = build_data(num_classes)
    trial = fit_nearest_centroid(data)
    reference = NearestCentroid().fit(data.train.features, data.train.labels)
    assert (predict(trial, data.val) == reference.predict(data.val.features)).all()
    assert trial.accuracy == pytest.approx(reference.score(data.val.features, data.val.labels))


def test_centroids_of_a_single_image_per_class_have_finite_logits() -> None:
    train = FeatureSet(np.eye(3, dtype=np.float32), np.arange(3))
    assert fit_nearest_centroid(ProbeData(train, train, 3)).accuracy == 1.0


@pytest.mark.parametrize("num_classes", [2, 5])
def test_logistic_regression_has_the_probabilities_of_scikit_learn(num_classes: int) -> None:
    data = build_data(num_classes)
    trials = {trial.setting["C"]: trial for trial in fit_logistic_regressions(data)}
    reference = LogisticRegression(C=0.01, max_iter=1000).fit(data.train.features, data.train.labels)
    expected = reference.predict_proba(data.val.features)
    linear = trials[0.01].linear
    assert linear is not None
    probabilities = torch.from_numpy(linear.compute_logits(data.val.features)).softmax(1).numpy()
    assert np.allclose(probabilities, expected, atol=1e-4)
    assert trials[0.01].loss == pytest.approx(log_loss(data.val.labels, expected), rel=1e-3)
    assert not trials[0.01].remark


@pytest.mark.parametrize("num_classes", [2, 5])
def test_the_linear_svm_predicts_as_scikit_learn(num_classes: int) -> None:
    data = build_data(num_classes)
    trial = list(fit_linear_svms(data))[-1]
    reference = LinearSVC(C=trial.setting["C"], random_state=0).fit(data.train.features, data.train.labels)
    assert (predict(trial, data.val) == reference.predict(data.val.features)).mean() > 0.99


def test_weaker_regularization_is_not_tried_after_it_only_got_worse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "LOGISTIC_C_VALUES", (0.1, 1e4, 1e5, 1e6, 1e-1))
    outlier = (1, 0.3)  # has label 0 among images of label 1; only its second feature differs from theirs
    train = FeatureSet(np.float32([(-1, 0)] * 10 + [(1, 0)] * 10 + [outlier]), np.array([0] * 10 + [1] * 10 + [0]))
    val = FeatureSet(np.float32([(-1, 0), (1, 0), (1, 1)]), np.array([0, 1, 1]))
    trials = list(fit_logistic_regressions(ProbeData(train, val, 2)))
    assert [trial.setting["C"] for trial in trials] == [0.1, 1e4, 1e5]
    assert trials[0].loss < min(trial.loss for trial in trials[1:])


def test_a_solver_that_did_not_converge_is_remarked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifiers, "MAX_ITERATIONS", 1)
    remarks = [trial.remark for trial in fit_logistic_regressions(build_data(5))]
    assert "stopped after 1 iterations" in remarks


def test_k_nn_predicts_as_scikit_learn_without_tied_votes() -> None:
    data = build_data(2)
    for trial in fit_nearest_neighbors(data):
        num_neighbors = int(trial.setting["k"])
        if num_neighbors % 2:
            reference = KNeighborsClassifier(num_neighbors, metric="cosine")
            reference.fit(data.train.features, data.train.labels)
            assert trial.accuracy == pytest.approx(reference.score(data.val.features, data.val.labels))
        assert trial.linear is None


def test_k_is_at_most_the_number_of_train_images() -> None:
    data = build_data(2)
    few_images = FeatureSet(data.train.features[:4], data.train.labels[:4])
    trials = fit_nearest_neighbors(ProbeData(few_images, data.val, 2))
    assert [trial.setting["k"] for trial in trials] == [4, 3, 1]


def test_the_nearer_images_decide_a_tied_vote() -> None:
    assert count_votes(np.array([[2, 0], [0, 2], [1, 1]]), 3).argmax(1).tolist() == [2, 0, 1]
    assert count_votes(np.array([[0] + [1] * 2 + [0] * 2 + [1] * 3]), 2).argmax(1).tolist() == [1]  # 5 votes to 3


def build_trial(accuracy: float, loss: float, name: str, seed: int = 0, is_linear: bool = True) -> ProbeTrial:
    linear = LinearModel(np.eye(2), np.zeros(2)) if is_linear else None
    return ProbeTrial(name, {"seed": seed}, accuracy, loss, 0.0, linear)


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        ((0.8, 0.1, "low loss"), (0.9, 0.5, "accurate"), "low loss"),
        ((0.9, 0.4, "strong"), (0.9, 0.4, "weak"), "strong"),
        ((0.9, float("nan"), "no probabilities"), (0.5, 9.0, "finite"), "finite"),
        ((0.9, float("inf"), "diverged"), (0.5, 9.0, "finite"), "finite"),
        ((0.8, float("nan"), "smooth"), (0.9, float("nan"), "accurate"), "accurate"),
        ((0.9, float("nan"), "smooth"), (0.9, float("nan"), "last"), "smooth"),
    ],
)
def test_the_lowest_loss_is_chosen_and_the_highest_accuracy_where_none_has_a_loss(
    first: tuple[float, float, str], second: tuple[float, float, str], winner: str
) -> None:
    assert select_best([build_trial(*first), build_trial(*second)]).method == winner


def test_a_setting_is_chosen_by_its_mean_over_seeds_and_not_by_a_lucky_seed() -> None:
    lucky = [build_trial(1.0, 0.1, "lucky", seed=0), build_trial(0.5, 0.9, "lucky", seed=1)]
    steady = [build_trial(0.8, 0.35, "steady", seed=0), build_trial(0.8, 0.3, "steady", seed=1)]
    assert select_best([*lucky, *steady]) is steady[0]


def test_a_setting_with_a_diverged_seed_is_not_chosen() -> None:
    unsteady = [build_trial(1.0, 0.1, "unsteady", seed=0), build_trial(0.1, float("nan"), "unsteady", seed=1)]
    assert select_best([*unsteady, build_trial(0.8, 0.4, "steady")]).method == "steady"


def test_k_nn_is_not_chosen() -> None:
    trials = [build_trial(1.0, float("nan"), "k-NN", is_linear=False), build_trial(0.5, 1.0, "linear")]
    assert select_best(trials).method == "linear"


def test_cross_entropy_is_finite_for_large_logits() -> None:
    assert compute_cross_entropy(np.array([[1e4, 0.0], [0.0, 1e4]]), np.array([0, 1])) == 0.0
    assert compute_cross_entropy(np.zeros((1, 4)), np.array([2])) == pytest.approx(np.log(4))
