"""Compare the cost of a hundred linear heads with that of one head, and report how good the best of them is.

    python -m benchmarks.heads dataset=hymenoptera                      real images, EfficientNet-Lite0
    python -m benchmarks.heads                                          captcha characters, 36 classes

The time runs from the features to heads with their validation accuracies: the grid of `thaw probe`, and a grid of one
head by the same function. Both take turns in one process, so that a machine that is slow for a while slows down both.
A third function takes turns with them: one head on the features at their original width. Rotating the features onto
the axes of the train images pays for many heads only.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from thaw.cli.probe import FIXED_OVERRIDES
from thaw.config.compose import compose_recipe
from thaw.metrics.classification import classification_metrics
from thaw.probing.linear_heads import HeadGrid, fit_linear_heads
from thaw.probing.trial import FeatureSet, ProbeData, ProbeTrial, Scaling, fit_scaling, select_best
from thaw.training.extraction import Extraction, extract_features

FULL_GRID, SINGLE_HEAD = HeadGrid(), HeadGrid(learning_rates=(0.01,), weight_decays=(0.001,), seeds=1)
ROUNDS = 9


def main(overrides: list[str]) -> None:
    features = extract_features(compose_recipe([*FIXED_OVERRIDES, *overrides]))
    functions = [
        lambda: fit_heads(features, SINGLE_HEAD),
        lambda: fit_heads(features, FULL_GRID),
        lambda: fit_heads(features, SINGLE_HEAD, rotate=False),
    ]
    report(time_in_turns(functions))
    report_best(select_best(fit_heads(features, FULL_GRID)), features)


def time_in_turns(functions: Sequence[Callable[[], object]]) -> list[float]:
    """Call the functions in turns and return the median seconds of each. The first round is not counted."""
    times_by_function: list[list[float]] = [[] for _ in functions]
    for number in range(1 + ROUNDS):
        for times, function in zip(times_by_function, functions, strict=True):
            start = time.perf_counter()
            function()
            if number:
                times.append(time.perf_counter() - start)
    return [statistics.median(times) for times in times_by_function]


def fit_heads(features: Extraction, grid: HeadGrid, rotate: bool = True) -> list[ProbeTrial]:
    scaling = fit_scaling(features.values[features.samples.get_positions("train")], rotate)
    train, val = (scale_split(features, scaling, split) for split in ("train", "val"))
    data = ProbeData(train, val, len(features.classes))
    width, device = features.values.shape[1], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return fit_linear_heads(data, grid, features.images.seed, width, device)


def scale_split(features: Extraction, scaling: Scaling, split: str) -> FeatureSet:
    positions: np.ndarray = features.samples.get_positions(split)
    return FeatureSet(scaling.transform(features.values[positions]), features.samples.get_labels()[positions])


def report(seconds: list[float]) -> None:
    """Print the milliseconds of one head, of the grid, and of one head on features at their original width."""
    single, grid, single_wide = seconds
    count = len(FULL_GRID.list_settings())
    print(f"1 head {single * 1000:.0f} ms, {count} heads {grid * 1000:.0f} ms: {grid / single:.2f} x the time of one")
    print(f"1 head on features as wide as they come {single_wide * 1000:.0f} ms: {grid / single_wide:.2f} x")


def report_best(best: ProbeTrial, features: Extraction) -> None:
    """Print the head that is best on the validation images and its test accuracy."""
    scaling = fit_scaling(features.values[features.samples.get_positions("train")])
    test = scale_split(features, scaling, "test")
    assert best.linear is not None
    logits = torch.from_numpy(best.linear.compute_logits(test.features))
    metrics = classification_metrics(logits, torch.from_numpy(test.labels))
    low, high = metrics["accuracy_ci95"]
    print(f"best on validation: {best.format_setting()}: {best.accuracy:.3f}")
    print(f"its test accuracy {metrics['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
