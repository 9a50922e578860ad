"""The picture of a probe marks whatever was chosen."""

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
    *(ProbeTrial("logistic regression", {"C": strength}, 0.8, 0.4, 0.1, LINEAR) for strength in (0.01, 0.1)),
    *HEADS,
]


def red_at(file: Path) -> list[int]:
    """The thirds of the width in which the red of the mark is seen."""
    with Image.open(file) as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    _, columns = np.nonzero((abs(pixels - (0xC2, 0x20, 0x20)).sum(2)) < 30)
    return sorted(set((3 * columns // pixels.shape[1]).tolist()))


@pytest.mark.parametrize(("winner", "third"), [(TRIALS[0], 1), (TRIALS[3], 1), (HEADS[-1], 2)])
def test_what_was_chosen_is_marked_in_the_picture_of_its_method(winner: ProbeTrial, third: int, tmp_path: Path) -> None:
    save_probe_plot(TRIALS, winner, "captcha: validation", tmp_path / "probe.png")
    assert red_at(tmp_path / "probe.png") == [third]
