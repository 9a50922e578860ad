"""Find shortcuts: how well the class can be told from file size, image size, compression or name alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import hypergeom
from sklearn.tree import DecisionTreeClassifier

from thaw.auditing.file_facts import FileFacts
from thaw.auditing.out_of_fold import assign_folds

MIN_LEAF_IMAGES, MAX_LEAVES = 5, 32
MAX_NAMED_CLASSES = 5
NUM_RESAMPLES = 1000
SIGNIFICANCE_LEVEL = 0.01
# Fraction of the way from chance to certainty that the lower end of the interval must reach: 0.7 where chance is 0.5.
# On eight data sets without planted shortcuts the largest was 0.33, the file size of pictures with and without fire.
MIN_STRENGTH = 0.4
# Files of one source are alike in these kinds, and in others with few values, so that less is needed: 10 classes, five
# each of two sources, give 0.11.
MIN_STRENGTH_OF_SOURCE, SOURCE_KINDS, MAX_SOURCES = 0.05, ("format and color mode", "JPEG tables", "camera"), 20
MIN_APART = 0.5  # of the images of each other class, which are not taken for the class that is told from all others
FILE_NAME = "file name"
REMARKS = {
    "file size": "a network does not see it, but it follows from the compression, the size and the detail of an image",
    "image size": "images are resized, but their aspect ratio, sharpness and traces of the compression remain",
    "format and color mode": "images are converted to RGB, but gray or transparent ones remain different",
    "JPEG tables": "a strong compression leaves blocks that a network can see, and tells sources apart",
    "camera": "a network does not see it, but cameras differ in color and noise",
    "date": "a network does not see it, but place and light change with it",
    FILE_NAME: "it is harmless to a network, which sees pixels only, but often tells sources apart",
}


@dataclass(frozen=True)
class ClassShortcut:
    """How well one class can be told from all others by one kind of facts.

    `accuracy` is the mean of the fractions of its images and of other images, averaged over the other classes, that are
    told rightly; chance is 0.5.
    The p-value (hypergeometric test) is corrected for the number of classes and kinds (Bonferroni).
    """

    label: int
    accuracy: float
    accuracy_ci95: tuple[float, float]
    p_value: float


@dataclass(frozen=True)
class Shortcut:
    """How well the class can be told from one kind of facts about the file alone.

    Attributes:
        kind: of the facts, as in `read_file_facts`.
        accuracy: mean over the classes of the fraction of images whose class is told, out of fold.
        accuracy_ci95: its interval.
        chance: one over the number of classes.
        p_value: of such an accuracy if the facts tell nothing (labels permuted within folds), corrected for the number
            of kinds. As folds share training images it is a little too low: of 600 simulated kinds that told nothing
            8 % had one below 0.05, and none was a shortcut.
        classes: those that can be told from all others, the best first.
        is_shortcut: whether the accuracy is significant (p below 0.01) and large, or there are such classes.
        remark: what the kind means for a network.
    """

    kind: str
    accuracy: float
    accuracy_ci95: tuple[float, float]
    chance: float
    p_value: float
    classes: tuple[ClassShortcut, ...]
    is_shortcut: bool
    remark: str

    def describe(self, class_names: Sequence[str]) -> str:
        """Return what can be told from the facts, as a sentence without its end."""
        low, high = self.accuracy_ci95
        text = (
            f"the class can be told from the {self.kind} alone in {self.accuracy:.2f} of cases "
            f"({low:.2f} to {high:.2f}); chance is {self.chance:.2f}"
        )
        if len(class_names) > 2 and self.classes:
            text += f"; told from all others, where chance is 0.50: {self.format_classes(class_names)}"
        return text

    def format_classes(self, class_names: Sequence[str]) -> str:
        """Return the classes that can be told from all others, at most MAX_NAMED_CLASSES, with the accuracy."""
        named = self.classes[:MAX_NAMED_CLASSES]
        return ", ".join(f"{class_names[shortcut.label]} ({shortcut.accuracy:.2f})" for shortcut in named)


def measure_shortcuts(facts: FileFacts, labels: np.ndarray, groups: np.ndarray, seed: int = 0) -> tuple[Shortcut, ...]:
    """Measure how well each kind of facts tells the class, best first; `labels` and `groups` are int64 [images].

    A small decision tree is fitted to four fifths of the images and tested on the others, in turn; copies and groups
    stay together. It is tested on one image of each group and class, as those of a group are not independent. The
    interval draws the number of images told rightly of each class anew.
    """
    num_kinds = len(facts.values_by_kind)
    folds = assign_folds(labels, groups, seed=seed)
    if folds.max() == 0:  # all images are of one group
        return ()
    _, tested = np.unique(groups * (labels.max() + 1) + labels, return_index=True)
    shortcuts = []
    for kind, values in facts.values_by_kind.items():
        predictions = _predict_by_tree(values, labels, folds)[tested]
        is_of_source = kind in SOURCE_KINDS or len(np.unique(values, axis=0)) <= MAX_SOURCES
        min_strength = MIN_STRENGTH_OF_SOURCE if is_of_source else MIN_STRENGTH
        shortcuts.append(_measure_shortcut(kind, predictions, labels[tested], folds[tested], num_kinds, min_strength))
    return tuple(sorted(shortcuts, key=lambda shortcut: (not shortcut.is_shortcut, -shortcut.accuracy)))


def _predict_by_tree(values: np.ndarray, labels: np.ndarray, folds: np.ndarray) -> np.ndarray:
    predictions = np.zeros_like(labels)
    num_leaves = max(MAX_LEAVES, 2 * len(np.unique(labels)))
    for fold in np.unique(folds):
        is_train = folds != fold
        tree = DecisionTreeClassifier(
            max_leaf_nodes=num_leaves, min_samples_leaf=MIN_LEAF_IMAGES, class_weight="balanced", random_state=0
        )
        predictions[~is_train] = tree.fit(values[is_train], labels[is_train]).predict(values[~is_train])
    return predictions


def _measure_shortcut(
    kind: str, predictions: np.ndarray, labels: np.ndarray, folds: np.ndarray, num_kinds: int, min_strength: float
) -> Shortcut:
    classes, sizes = np.unique(labels, return_counts=True)
    correct = np.array([(predictions[labels == label] == label).sum() for label in classes])
    accuracy, chance = float((correct / sizes).mean()), 1 / len(classes)
    low, high = _draw_interval(correct, sizes, np.full(len(classes), chance))
    p_value = min(1.0, num_kinds * _permute_labels(predictions, labels, folds, accuracy))
    class_shortcuts = _find_class_shortcuts(predictions, labels, num_kinds) if len(classes) > 1 else ()
    is_strong = p_value < SIGNIFICANCE_LEVEL and low - chance >= min_strength * (1 - chance)
    is_shortcut = is_strong or bool(class_shortcuts)
    return Shortcut(kind, accuracy, (low, high), chance, p_value, class_shortcuts, is_shortcut, REMARKS[kind])


def _permute_labels(predictions: np.ndarray, labels: np.ndarray, folds: np.ndarray, accuracy: float) -> float:
    """Return how often labels permuted within folds agree as well with the predictions."""
    weights = 1 / np.bincount(labels)[labels] / len(np.unique(labels))
    order = np.argsort(folds, kind="stable")
    predictions, labels, weights = predictions[order], labels[order], weights[order]
    starts = np.flatnonzero(np.diff(folds[order], prepend=-1))
    fold_sizes = np.diff([*starts, len(labels)])
    rng, num_as_good = np.random.default_rng(0), 0
    for _ in range(NUM_RESAMPLES):
        shuffled = np.concatenate(
            [start + rng.permutation(size) for start, size in zip(starts, fold_sizes, strict=True)]
        )
        num_as_good += weights[shuffled][labels[shuffled] == predictions].sum() >= accuracy - 1e-12
    return float((num_as_good + 1) / (NUM_RESAMPLES + 1))


def _draw_interval(correct: np.ndarray, sizes: np.ndarray, weights: np.ndarray) -> tuple[float, float]:
    """Return the 95 % interval of the weighted sum of the proportions `correct / sizes`.

    Each proportion is drawn from its posterior after a prior of one image that is right as often as all are, so that
    many small classes do not shift the sum.
    """
    prior = (correct.sum() + 0.5) / (sizes.sum() + 1)
    draws = np.random.default_rng(0).beta(
        correct + prior, sizes - correct + 1 - prior, size=(NUM_RESAMPLES, len(sizes))
    )
    low, high = np.quantile(draws @ weights, (0.025, 0.975))
    return float(low), float(high)


def _find_class_shortcuts(predictions: np.ndarray, labels: np.ndarray, num_kinds: int) -> tuple[ClassShortcut, ...]:
    """Return the classes that can be told from each other class, which count alike whatever their sizes; best first."""
    classes, sizes = np.unique(labels, return_counts=True)
    shortcuts = []
    for index, label in enumerate(classes):
        num_predicted = np.bincount(np.searchsorted(classes, labels[predictions == label]), minlength=len(classes))
        correct = np.where(classes == label, num_predicted, sizes - num_predicted)
        weights = np.where(classes == label, 0.5, 0.5 / (len(classes) - 1))
        p_value = float(hypergeom.sf(num_predicted[index] - 1, len(labels), sizes[index], num_predicted.sum()))
        p_value = min(1.0, p_value * len(classes) * num_kinds)
        accuracy, min_accuracy = float(correct / sizes @ weights), 0.5 + MIN_STRENGTH / 2
        is_apart = np.delete(correct / sizes, index).min() >= MIN_APART
        if p_value < SIGNIFICANCE_LEVEL and accuracy >= min_accuracy and is_apart:
            interval = _draw_interval(correct, sizes, weights)
            shortcuts += [ClassShortcut(int(label), accuracy, interval, p_value)] * (interval[0] >= min_accuracy)
    return tuple(sorted(shortcuts, key=lambda shortcut: -shortcut.accuracy))
