"""Measure how much a random split flatters: the same classifier with grouped and with random folds, on features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from thaw.data.group_partition import divide_groups
from thaw.metrics.bootstrap import compute_mean_interval, sum_over_units
from thaw.metrics.per_class import Interval
from thaw.probing.trial import fit_scaling

C_VALUE = 1e-2  # inverse regularization; on standardized features 1e-3 to 1e-2 were best
MAX_ITERATIONS = 1000


@dataclass(frozen=True)
class GroupEffect:
    """The accuracy of one classifier over all images, each tested once.

    Attributes:
        grouped_accuracy: with folds that keep groups together.
        random_accuracy: with random folds of the same number.
        difference_ci95: 95 % interval of random minus grouped, over groups; zeros if no image differs.
        num_groups: the number of groups.
    """

    grouped_accuracy: float
    random_accuracy: float
    difference_ci95: Interval
    num_groups: int

    @property
    def difference(self) -> float:
        """How much more random folds measure."""
        return self.random_accuracy - self.grouped_accuracy

    def describe(self) -> str:
        """Return the two accuracies and what they mean, as one line."""
        low, high = self.difference_ci95
        numbers = f"with random folds {self.random_accuracy:.3f} instead of {self.grouped_accuracy:.3f}"
        if low > 0:
            meaning = f"images of one group on both sides flatter by {self.difference:.3f}"
        elif high < 0:
            meaning = f"other groups are easier by {-self.difference:.3f}"
        else:
            meaning = f"no effect of the groups is seen (95 % interval {low:+.3f} to {high:+.3f})"
        return f"{numbers} (the same logistic regression): {meaning}"


def measure_group_effect(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, num_folds: int = 5, seed: int = 0
) -> GroupEffect:
    """Fit a logistic regression with grouped and with random folds and test each image once. If the images are sorted
    by path, the grouped folds are those of the data set for `dataset.split_seed` = `seed`.

    Args:
        features: float [n, width].
        labels: int64 [n], counted from 0 without gaps.
        groups: int64 [n], counted from 0 without gaps; there must be at least `num_folds`.
        num_folds: parts, each of which is tested once.
        seed: cuts the parts.
    """
    parts = divide_groups(labels, groups, [1 / num_folds] * num_folds, (seed,), is_equal=True)
    random_folds = StratifiedKFold(num_folds, shuffle=True, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds
        random_tests = [test for _, test in random_folds.split(features, labels)]
    grouped_tests = [np.flatnonzero(parts[groups] == fold) for fold in range(num_folds)]
    grouped_correct = _predict_out_of_fold(features, labels, grouped_tests)
    random_correct = _predict_out_of_fold(features, labels, random_tests)
    differences = random_correct.astype(float) - grouped_correct
    return GroupEffect(
        float(grouped_correct.mean()),
        float(random_correct.mean()),
        compute_mean_interval(sum_over_units(np.arange(len(labels)), groups, differences)) or (0.0, 0.0),
        len(np.unique(groups)),
    )


def _predict_out_of_fold(features: np.ndarray, labels: np.ndarray, folds: Sequence[np.ndarray]) -> np.ndarray:
    """Return whether each image is predicted correctly by the classifier that was not fitted to it, bool [n]. `folds`
    are the positions of the images of each part."""
    is_correct = np.zeros(len(labels), dtype=bool)
    for test in folds:
        train = np.setdiff1d(np.arange(len(labels)), test)
        scaling = fit_scaling(features[train])
        model = LogisticRegression(C=C_VALUE, max_iter=MAX_ITERATIONS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit(scaling.transform(features[train]), labels[train])
        is_correct[test] = model.predict(scaling.transform(features[test])) == labels[test]
    return is_correct
