"""The plot of a probe marks the winner."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thaw.probing.plot import save_probe_plot
from thaw.probing.trial import KNN_METHOD, LINEAR_HEAD_METHOD, LinearModel, ProbeTrial

LINEAR = LinearModel(np.eye(2), np.zeros(2))
HEADS = [
    ProbeTrial(
        LINEAR_HEAD_METHOD,
        {"learning rate": rate, "weight decay": decay, "seed": seed},
        0.7 + rate - decay / 10,
        0.5,
        0.1,
        LINEAR,
    )
    for rate in (0.01, 0.1)
    for decay in (0.0, 0.1)
    for seed in (0, 1)
]
TRIALS = [
    ProbeTrial("nearest centroid", {}, 0.75, 0.6, 0.1, LINEAR),
    *(ProbeTrial(KNN_METHOD, {"k": k}, 0.7, float("nan"), 0.1, None) for k in (5, 1)),
    *(ProbeTrial("logistic regression", {"C": c_value}, 0.8, 0.4, 0.1, LINEAR) for c_value in (0.01, 0.1)),
    *HEADS,
]


def find_red_thirds(file: Path) -> list[int]:
    """Return the thirds of the image's width that contain the red of the mark."""
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    _, columns = np.nonzero((abs(pixels - (0xC2, 0x20, 0x20)).sum(2)) < 30)
    return sorted(set((3 * columns // pixels.shape[1]).tolist()))


@pytest.mark.parametrize(("winner", "third"), [(TRIALS[0], 1), (TRIALS[3], 1), (HEADS[-1], 2)])
def test_the_winner_is_marked_in_the_plot_of_its_method(winner: ProbeTrial, third: int, tmp_path: Path) -> None:
    save_probe_plot(TRIALS, winner, "captcha: validation", tmp_path / "probe.png")
    assert find_red_thirds(tmp_path / "probe.png") == [third]
