"""How often the statistics of a comparison are wrong: false alarms, power, coverage of intervals.

    python -m benchmarks.statistics            about 7 minutes on one core
    python -m benchmarks.statistics --quick    a tenth of the simulations

Each row simulates comparisons of two configurations and counts how often the test calls them different at 5 % (false
alarms, if they are equally accurate; power, if not), how often the 95 % interval holds the true difference, and how
often equivalence within one point is claimed at a true difference of one point. Image-level rows draw the predictions:
images differ in difficulty, and images of a group share some of it. Rows of splits and folds train real classifiers on
samples of a population: two that see disjoint halves of the features, which are alike, so that neither is better.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from thaw.comparison.designs import Design, PairedRun, ScoredRun
from thaw.comparison.estimates import estimate_accuracy
from thaw.comparison.significance import test_paired_runs

LEVEL = 0.05
NUM_TEST = 300
NUM_FEATURES, NUM_SAMPLES = 20, 200
Classify = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Simulated:
    """One comparison, and the true difference and accuracy that its intervals should hold."""

    pairs: list[PairedRun]
    design: Design
    difference: float
    accuracy: float


def sigmoid(values: np.ndarray) -> np.ndarray:
    """Return the logistic function of `values`."""
    return np.asarray(1 / (1 + np.exp(-values)))


def simulate_images(
    rng: np.random.Generator,
    num_seeds: int,
    effect: float,
    num_groups: int | None = None,
    num_images: int = NUM_TEST,
    size_spread: float = 0.0,
) -> Simulated:
    """Draw the predictions of `num_seeds` seeds on the same images; the configuration is better by `effect` logits.

    From three seeds on the truth is that of these images; with fewer it is that of the population of images. The sizes
    of groups are log-normal with the spread `size_spread`.
    """
    group_index = np.arange(num_images)
    if num_groups is not None:
        sizes = rng.lognormal(0, size_spread, num_groups)
        group_index = rng.choice(num_groups, num_images, p=sizes / sizes.sum())
    difficulty = 1.5 + rng.normal(0, 1.5, num_images)
    shared = rng.normal(0, 1, (2, num_images if num_groups is None else num_groups))[:, group_index]
    logits = difficulty + (0 if num_groups is None else shared) + np.array([[effect], [0.0]])
    logits = np.broadcast_to(logits, (2, num_images))
    probabilities = sigmoid(logits)
    images, groups = np.arange(num_images).astype(str), np.array([f"g{index}" for index in group_index])
    pairs = []
    for seed in range(num_seeds):
        correct = rng.random((2, num_images)) < probabilities
        pairs.append(PairedRun(seed, "a", 1000, False, images, images if num_groups is None else groups, *correct))
    if num_seeds >= 3:
        truth = probabilities.mean(1)
    else:
        spread = 1.5 if num_groups is None else np.hypot(1.5, 1)
        truth = sigmoid(np.array([[1.5 + effect], [1.5]]) + spread * _NORMAL_GRID).mean(1)
    return Simulated(pairs, "seeds", float(truth[0] - truth[1]), float(truth[0]))


_NORMAL_GRID = stats.norm.ppf((np.arange(4000) + 0.5) / 4000)[None]


def fit_ridge(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Classify `test` by a ridge regression."""
    weights = np.linalg.solve(train.T @ train + 10 * np.eye(train.shape[1]), train.T @ (2 * labels - 1))
    return np.asarray(test @ weights > 0).astype(int)


def fit_centroids(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Classify `test` by the nearest class mean."""
    means = [train[labels == label].mean(0) for label in (0, 1)]
    return np.asarray(((test - (means[0] + means[1]) / 2) @ (means[1] - means[0])) > 0).astype(int)


def fit_neighbors(train: np.ndarray, labels: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Classify `test` by the five nearest train images, an unstable classifier."""
    distances = ((test[:, None] - train[None]) ** 2).sum(-1)
    return np.asarray(labels[np.argsort(distances, 1)[:, :5]].mean(1) > 0.5).astype(int)


def draw_sample(rng: np.random.Generator, num_groups: int | None, effect: float) -> tuple[np.ndarray, ...]:
    """Return features [n, 2 x NUM_FEATURES], labels [n] and groups [n]: a group shifts all its features. The second
    half of the features is weaker by `effect`."""
    groups = np.arange(NUM_SAMPLES) if num_groups is None else rng.integers(0, num_groups, NUM_SAMPLES)
    labels = rng.integers(0, 2, NUM_SAMPLES)
    strength = np.r_[np.full(NUM_FEATURES, 0.25), np.full(NUM_FEATURES, 0.25 * (1 - effect))]
    features = rng.normal(size=(NUM_SAMPLES, 2 * NUM_FEATURES)) + strength * (2 * labels[:, None] - 1)
    if num_groups is not None:
        features += rng.normal(0, 0.5, (num_groups, 2 * NUM_FEATURES))[groups]
    return features, labels, groups


def iter_tests(rng: np.random.Generator, groups: np.ndarray, design: Design, num_splits: int) -> Iterator[np.ndarray]:
    """Yield the test positions of each split: folds of groups, or random 15 % of the images."""
    if design == "folds":
        yield from (np.flatnonzero(np.isin(groups, part)) for part in _cut_groups(rng, groups, num_splits))
        return
    for _ in range(num_splits):
        yield rng.permutation(len(groups))[: int(0.15 * len(groups))]


def _cut_groups(rng: np.random.Generator, groups: np.ndarray, num_splits: int) -> list[np.ndarray]:
    return np.array_split(rng.permutation(np.unique(groups)), num_splits)


def simulate_training(
    rng: np.random.Generator,
    classify: Classify,
    design: Design,
    num_splits: int,
    effect: float,
    num_groups: int | None = None,
) -> Simulated:
    """Train on each split of one sample. The truth is not known here; `run_row` takes it from all simulations."""
    features, labels, groups = draw_sample(rng, num_groups, effect)
    names = np.array([f"g{group}" for group in groups]) if num_groups else np.arange(NUM_SAMPLES).astype(str)
    pairs = []
    for number, test in enumerate(iter_tests(rng, groups, design, num_splits)):
        train = np.setdiff1d(np.arange(NUM_SAMPLES), test)
        halves = (slice(0, NUM_FEATURES), slice(NUM_FEATURES, None))
        correct = [
            classify(features[train, half], labels[train], features[test, half]) == labels[test] for half in halves
        ]
        images = test.astype(str)
        pairs.append(PairedRun(0, f"{number}", len(train), design == "folds", images, names[test], *correct))
    return Simulated(pairs, design, float("nan"), float("nan"))


def score(pair: PairedRun) -> ScoredRun:
    """Return the side of the configuration."""
    return ScoredRun(pair.seed, pair.split, pair.num_train, pair.is_fold, pair.images, pair.groups, pair.correct)


def run_row(simulate: Callable[[np.random.Generator], Simulated], num_simulations: int) -> dict[str, float]:
    """Return the fraction of simulations that are called different, whose intervals hold the truth, and that are called
    equivalent."""
    rng = np.random.default_rng(0)
    simulations = [simulate(rng) for _ in range(num_simulations)]
    tests = [test_paired_runs(simulation.pairs, simulation.design) for simulation in simulations]
    estimates = [estimate_accuracy([score(pair) for pair in item.pairs], item.design) for item in simulations]
    means = np.mean([[test.difference, estimate.mean] for test, estimate in zip(tests, estimates, strict=True)], axis=0)
    truths = np.array([[item.difference, item.accuracy] for item in simulations])
    truths = np.where(np.isnan(truths), means, truths)
    return {
        "different": float(np.mean([test.p_value < LEVEL for test in tests])),
        "covers": _measure_coverage([(test.low, test.high) for test in tests], truths[:, 0]),
        "accuracy covers": _measure_coverage([(item.low, item.high) for item in estimates], truths[:, 1]),
        "equivalent": float(np.mean([test.equivalence_p_value < LEVEL for test in tests])),
        "difference": float(truths[:, 0].mean()),
    }


def _measure_coverage(intervals: Sequence[tuple[float, float]], truths: np.ndarray) -> float:
    low, high = np.array(intervals).T
    return float(np.mean((low <= truths) & (truths <= high)))


def run_plain_t_test(num_splits: int, num_simulations: int) -> float:
    """Return the false alarms of the plain paired t-test over resampled splits, which thaw used up to version 0.2."""
    rng = np.random.default_rng(0)
    p_values = []
    for _ in range(num_simulations):
        pairs = simulate_training(rng, fit_ridge, "resamples", num_splits, 0.0).pairs
        p_values.append(stats.ttest_1samp([pair.difference for pair in pairs], 0).pvalue)
    return float(np.mean(np.array(p_values) < LEVEL))


def build_rows() -> dict[str, tuple[Callable[[np.random.Generator, float], Simulated], float]]:
    """Return for each row of the table the simulation of a given effect, and the effect for which power is measured."""
    return {
        "seeds: 3 seeds, same 300 test images": (lambda rng, effect: simulate_images(rng, 3, effect), 0.6),
        "seeds: 5 seeds, same 300 test images": (lambda rng, effect: simulate_images(rng, 5, effect), 0.4),
        "images: one seed, 300 images": (lambda rng, effect: simulate_images(rng, 1, effect), 0.6),
        "images: one seed, 2,000 images": (lambda rng, effect: simulate_images(rng, 1, effect, None, 2000), 0.25),
        "images: 2 seeds, 300 images": (lambda rng, effect: simulate_images(rng, 2, effect), 0.5),
        "groups: one seed, 300 images in 30 groups": (lambda rng, effect: simulate_images(rng, 1, effect, 30), 0.8),
        "groups: one seed, 300 images in 12 groups": (lambda rng, effect: simulate_images(rng, 1, effect, 12), 1.0),
        "groups: one seed, 300 images in 30 unequal groups": (
            lambda rng, effect: simulate_images(rng, 1, effect, 30, size_spread=1.0),
            1.0,
        ),
        **{
            f"splits: {count} resampled splits, {name}": (_build_training(classify, "resamples", count), 0.25)
            for name, classify in LEARNERS.items()
            for count in (5, 10)
        },
        **{
            f"pooled images: {count} folds, {name}": (_build_training(classify, "folds", count), 0.25)
            for name, classify in LEARNERS.items()
            for count in (5, 10)
        },
        **{
            f"pooled groups: 5 folds, 40 groups, {name}": (_build_training(classify, "folds", 5, 40), 0.3)
            for name, classify in LEARNERS.items()
        },
    }


LEARNERS: dict[str, Classify] = {"ridge": fit_ridge, "centroids": fit_centroids, "5 neighbors": fit_neighbors}


def _build_training(
    classify: Classify, design: Design, num_splits: int, num_groups: int | None = None
) -> Callable[[np.random.Generator, float], Simulated]:
    return lambda rng, effect: simulate_training(rng, classify, design, num_splits, effect, num_groups)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the simulations")
    scale = 10 if parser.parse_args().quick else 1
    print(
        "| procedure | false alarms at 5 % | power (difference) | 95 % interval of the difference | of the accuracy |"
    )
    print("|---|---|---|---|---|")
    for name, (simulate, effect) in build_rows().items():
        num_simulations = (1000 if "splits" in name or "pooled" in name else 2000) // scale
        null = run_row(lambda rng, simulate=simulate: simulate(rng, 0.0), num_simulations)  # type: ignore[misc]
        other = run_row(lambda rng, simulate=simulate, effect=effect: simulate(rng, effect), num_simulations // 2)  # type: ignore[misc]
        print(
            f"| {name} | {null['different']:.3f} | {other['different']:.2f} ({other['difference']:.3f}) "
            f"| {null['covers']:.3f}, {other['covers']:.3f} | {null['accuracy covers']:.3f} |",
            flush=True,
        )
    for count in (5, 10):
        rate = run_plain_t_test(count, 1000 // scale)
        print(f"| plain t-test over {count} resampled splits (up to version 0.2) | {rate:.3f} | | | |", flush=True)
    print_equivalence(2000 // scale)


def print_equivalence(num_simulations: int) -> None:
    """Print how often equivalence within one point is claimed at a true difference of one point, and at none."""
    print("\n| equivalence within 1 point | claimed at a true difference of 1 point | at none |")
    print("|---|---|---|")
    for num_images in (300, 3000, 30_000):
        effect = _find_effect(0.01)
        rates = []
        for used_effect in (effect, 0.0):
            rng = np.random.default_rng(1)
            tests = [
                test_paired_runs(simulate_images(rng, 1, used_effect, None, num_images).pairs, "seeds")
                for _ in range(num_simulations // (5 if num_images > 3000 else 1))
            ]
            rates.append(np.mean([test.equivalence_p_value < LEVEL for test in tests]))
        print(f"| one seed, {num_images:,} images | {rates[0]:.3f} | {rates[1]:.3f} |", flush=True)


def _find_effect(difference: float) -> float:
    """Return the effect in logits that makes the population's accuracies differ by `difference`."""
    effects = np.linspace(0, 1, 2001)
    accuracies = sigmoid(1.5 + effects[:, None] + 1.5 * _NORMAL_GRID).mean(1)
    return float(np.interp(difference, accuracies - accuracies[0], effects))


if __name__ == "__main__":
    main()
