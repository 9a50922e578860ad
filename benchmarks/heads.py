"""What a hundred linear heads cost beside one, and how good the best of them is.

    python -m benchmarks.heads dataset=hymenoptera                      real images, EfficientNet-Lite0
    python -m benchmarks.heads                                          captcha characters, 36 classes

From the features to heads that are judged on the validation images: the grid of `thaw probe`, and a grid of one by the
same function. Both take turns in one process, so that a machine which is slow for a while is slow for both; and with
them a third, one head on features as wide as they come: the turn onto the axes of the train images is for the many.
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
from thaw.probing.trial import FeatureSet, ProbeData, ProbeTrial, Scaling, fit_scaling, select_most_accurate
from thaw.training.extraction import Extraction, extract_features

MANY, ONE = HeadGrid(), HeadGrid(learning_rates=(0.01,), weight_decays=(0.001,), seeds=1)
ROUNDS = 9


def main(overrides: list[str]) -> None:
    found = extract_features(compose_recipe([*FIXED_OVERRIDES, *overrides]))
    functions = [lambda: trials(found, ONE), lambda: trials(found, MANY), lambda: trials(found, ONE, turned=False)]
    report(taken_in_turn(functions))
    say_best(select_most_accurate(trials(found, MANY)), found)


def taken_in_turn(functions: Sequence[Callable[[], object]]) -> list[float]:
    """The median seconds of each; a first round is not counted."""
    taken: list[list[float]] = [[] for _ in functions]
    for number in range(1 + ROUNDS):
        for times, function in zip(taken, functions, strict=True):
            started = time.perf_counter()
            function()
            if number:
                times.append(time.perf_counter() - started)
    return [statistics.median(times) for times in taken]


def trials(found: Extraction, grid: HeadGrid, turned: bool = True) -> list[ProbeTrial]:
    scaling = fit_scaling(found.values[found.samples.get_positions("train")], turned)
    data = ProbeData(vectors(found, scaling, "train"), vectors(found, scaling, "val"), len(found.classes))
    width, device = found.values.shape[1], torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return fit_linear_heads(data, grid, found.images.seed, width, device)


def vectors(found: Extraction, scaling: Scaling, split: str) -> FeatureSet:
    places: np.ndarray = found.samples.get_positions(split)
    return FeatureSet(scaling.transform(found.values[places]), found.samples.get_labels()[places])


def report(seconds: list[float]) -> None:
    one, many, wide = seconds
    count = len(MANY.list_settings())
    print(f"1 head {one * 1000:.0f} ms, {count} heads {many * 1000:.0f} ms: {many / one:.2f} x the time of one")
    print(f"1 head on features as wide as they come {wide * 1000:.0f} ms: {many / wide:.2f} x")


def say_best(best: ProbeTrial, found: Extraction) -> None:
    scaling = fit_scaling(found.values[found.samples.get_positions("train")])
    test = vectors(found, scaling, "test")
    assert best.linear is not None
    metrics = classification_metrics(
        torch.from_numpy(best.linear.compute_logits(test.features)), torch.from_numpy(test.labels)
    )
    low, high = metrics["accuracy_ci95"]
    print(f"best on validation: {best.format_setting()}: {best.accuracy:.3f}")
    print(f"its test accuracy {metrics['accuracy']:.3f}, 95 % interval {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main(sys.argv[1:])
