"""Find probable wrong labels by confident learning, and measure on planted ones how many would be found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from thaw.auditing.neighbors import Neighbors
from thaw.auditing.out_of_fold import OutOfFold, predict_out_of_fold

MAX_LISTED_FRACTION = 0.1  # of the images; more are no list but classes that overlap
PLANTED_FRACTION = 0.05
MIN_DRAWS, MAX_DRAWS, MIN_PLANTED = 3, 10, 300  # draws until 300 labels are planted
# Images times classes, above which there are three draws, and one: each is a prediction of all images.
MAX_PREDICTIONS, MAX_PREDICTIONS_OF_DRAWS = 50_000, 2_000_000
MIN_PROBABILITY = 1e-6
# Where classes are easy, right labels have a mean probability of 0.95, which wrong ones seldom reach: with 0.8 instead
# of 1, 0.97 instead of 0.92 of 40 wrong labels that were planted in wildfire2 were listed.
MAX_THRESHOLD = 0.8


@dataclass(frozen=True)
class SuspectLabel:
    """An image whose label is probably wrong.

    Attributes:
        position: of the image.
        label: the class that it has.
        likely_label: the most probable other class.
        label_probability: of its label.
        likely_probability: of `likely_label`.
    """

    position: int
    label: int
    likely_label: int
    label_probability: float
    likely_probability: float


@dataclass(frozen=True)
class PlantedRecall:
    """How many wrong labels are found that were planted in a copy of the labels; means over draws.

    Attributes:
        num_planted: wrong labels per draw.
        num_draws: draws of each kind.
        num_listed: images listed.
        recall: fraction of the planted ones that are listed, of labels that became any other class.
        recall_range: lowest and highest of the draws.
        top_precision: fraction of the first `num_planted` listed images that are planted ones. The true value is
            higher where the labels are not all right.
        similar_recall: as `recall`, of labels that became a class the image resembles: harder, as people's mistakes.
    """

    num_planted: int
    num_draws: int
    num_listed: float
    recall: float
    recall_range: tuple[float, float]
    top_precision: float
    similar_recall: float

    def describe(self) -> str:
        """Return the measurement as a sentence."""
        low, high = self.recall_range
        spread = f"; {low:.2f} to {high:.2f} over {self.num_draws} draws" if self.num_draws > 1 else ""
        return (
            f"of {self.num_planted} planted wrong labels {self.recall * self.num_planted:.0f} are among the "
            f"{self.num_listed:.0f} images listed (recall {self.recall:.2f}{spread}), {self.top_precision:.0%} of the "
            f"top {self.num_planted} are planted; {self.similar_recall:.0%} of those of a similar class are listed"
        )


@dataclass(frozen=True)
class LabelCheck:
    """The probable wrong labels of a data set.

    Attributes:
        suspects: the most probable first, at most a tenth of the images.
        num_estimated: number of wrong labels that confident learning estimates; classes that overlap add to it.
        num_unpredictable: images of classes without an image in another fold, which cannot be checked.
        accuracy: of the predictions, on images that they were not fitted to.
        planted: None if there are too few images to plant a wrong label.
    """

    suspects: tuple[SuspectLabel, ...]
    num_estimated: int
    num_unpredictable: int
    accuracy: float
    planted: PlantedRecall | None


def check_labels(
    projected: np.ndarray, neighbors: Neighbors, labels: np.ndarray, groups: np.ndarray, predictions: OutOfFold
) -> LabelCheck:
    """Find the probable wrong labels by `predictions`, and measure the recall by refitting to planted ones.

    The other arguments are those of `predict_out_of_fold`.
    """
    order = rank_suspects(predictions, labels)
    probabilities, likely_labels = predictions.probabilities, find_likely_labels(predictions.probabilities, labels)
    suspects = tuple(
        SuspectLabel(
            int(position),
            int(labels[position]),
            int(likely_labels[position]),
            float(probabilities[position, labels[position]]),
            float(probabilities[position, likely_labels[position]]),
        )
        for position in order
    )
    return LabelCheck(
        suspects,
        count_wrong_labels(estimate_confident_joint(predictions, labels)),
        int((~predictions.is_predictable).sum()),
        predictions.compute_accuracy(labels),
        measure_planted_recall(projected, neighbors, labels, groups, predictions.probabilities),
    )


def find_likely_labels(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return the most probable class other than its label for each image, int64 [images]."""
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = -1
    return np.asarray(others.argmax(1))


def estimate_confident_joint(
    predictions: OutOfFold, labels: np.ndarray, max_threshold: float = MAX_THRESHOLD
) -> np.ndarray:
    """Estimate the confident joint, float64 [classes, classes]: how many images have each label and each true class
    (Northcutt, Jiang and Chuang 2021).

    A prediction is confident if its probability is at least the mean probability of that class over the images with
    its label, or `max_threshold` if that is lower: overconfident and underconfident classes are judged alike. Of
    several confident classes the most probable counts. Each row is scaled to the number of images with the label.
    """
    is_counted = predictions.is_predictable
    probabilities, labels = predictions.probabilities[is_counted], labels[is_counted]
    num_classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    sizes = np.bincount(labels, minlength=num_classes)
    thresholds = np.bincount(labels, own, num_classes) / np.maximum(sizes, 1)
    is_confident = (probabilities >= np.minimum(thresholds, max_threshold)) & (sizes > 0)
    confident_labels = np.where(is_confident, probabilities, -1).argmax(1)
    rows = is_confident.any(1)
    cells = labels[rows] * num_classes + confident_labels[rows]
    joint = np.bincount(cells, minlength=num_classes**2).reshape(num_classes, num_classes)
    return np.asarray(joint * (sizes / np.maximum(joint.sum(1), 1))[:, None])


def count_wrong_labels(confident_joint: np.ndarray) -> int:
    """Return the number of images off the diagonal of a confident joint: the estimated number of wrong labels."""
    return round(float(confident_joint.sum() - np.trace(confident_joint)))


def rank_suspects(predictions: OutOfFold, labels: np.ndarray) -> np.ndarray:
    """Return the positions of the probable wrong labels, int64 [suspects], the most probable first.

    Confident learning determines how many there are, up to a tenth of the images, and the ratio of the probability of
    the label to that of the most probable other class determines which: on eight data sets, the same number of images
    off the diagonal of the joint had fewer planted wrong labels (recall 0.67 instead of 0.87 on sign_digits10), and the
    first ones by the difference of the probabilities were less often planted.
    """
    num_estimated = count_wrong_labels(estimate_confident_joint(predictions, labels))
    scores = compute_label_scores(predictions, labels)
    count = min(num_estimated, round(MAX_LISTED_FRACTION * len(labels)), int((scores < 0).sum()))
    return np.argsort(scores, kind="stable")[:count]


def compute_label_scores(predictions: OutOfFold, labels: np.ndarray) -> np.ndarray:
    """Return the logarithm of the label's probability over that of the most probable other class, float64 [images].

    The lower, the more probable is it that the label is wrong. It is infinite where there is no prediction.
    """
    probabilities, rows = predictions.probabilities, np.arange(len(labels))
    own, other = (probabilities[rows, columns] for columns in (labels, find_likely_labels(probabilities, labels)))
    scores = np.log(own + MIN_PROBABILITY) - np.log(other + MIN_PROBABILITY)
    return np.where(predictions.is_predictable, scores, np.inf)


def measure_planted_recall(
    projected: np.ndarray, neighbors: Neighbors, labels: np.ndarray, groups: np.ndarray, probabilities: np.ndarray
) -> PlantedRecall | None:
    """Plant wrong labels in copies of `labels`, predict again, and count how many are listed.

    A tenth of a data set with other wrong labels is listed at most, so that these compete with the planted ones.
    `probabilities` [images, classes] tell which classes an image resembles. The draws are deterministic.
    """
    num_planted, num_classes = round(PLANTED_FRACTION * len(labels)), probabilities.shape[1]
    if not num_planted or num_classes < 2:
        return None
    num_draws = _choose_num_draws(num_planted, probabilities.size)

    def count_listed(weights: np.ndarray) -> np.ndarray:
        """Return the images listed, the planted ones among them and among the first, of each draw."""
        counts = []
        for planted_labels, is_planted in _plant_wrong_labels(labels, weights, num_planted, num_draws):
            predictions = predict_out_of_fold(projected, neighbors, planted_labels, groups)
            is_listed_planted = is_planted[rank_suspects(predictions, planted_labels)]
            counts.append([len(is_listed_planted), is_listed_planted.sum(), is_listed_planted[:num_planted].sum()])
        return np.array(counts, dtype=np.float64)

    num_listed, num_recalled, num_top = count_listed(np.ones_like(probabilities)).T
    recalls = num_recalled / num_planted
    return PlantedRecall(
        num_planted,
        num_draws,
        float(num_listed.mean()),
        float(recalls.mean()),
        (float(recalls.min()), float(recalls.max())),
        float(num_top.mean() / num_planted),
        float(count_listed(probabilities)[:, 1].mean() / num_planted),
    )


def _choose_num_draws(num_planted: int, num_predictions: int) -> int:
    if num_predictions > MAX_PREDICTIONS_OF_DRAWS:
        return 1
    if num_predictions > MAX_PREDICTIONS:
        return MIN_DRAWS
    return min(max(MIN_DRAWS, MIN_PLANTED // num_planted), MAX_DRAWS)


def _plant_wrong_labels(
    labels: np.ndarray, weights: np.ndarray, num_planted: int, num_draws: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield copies of `labels` with `num_planted` wrong ones, and which are wrong, bool [images].

    The wrong class of an image is drawn in proportion to its row of `weights` [images, classes].
    """
    for draw in range(num_draws):
        rng = np.random.default_rng(draw)
        positions = rng.choice(len(labels), num_planted, replace=False)
        odds = weights[positions] + MIN_PROBABILITY
        odds[np.arange(num_planted), labels[positions]] = 0
        thresholds = rng.random((num_planted, 1)) * odds.sum(1, keepdims=True)
        planted_labels, is_planted = labels.copy(), np.zeros(len(labels), dtype=bool)
        planted_labels[positions] = (odds.cumsum(1) <= thresholds).sum(1)
        is_planted[positions] = True
        yield planted_labels, is_planted
