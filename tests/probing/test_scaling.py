"""Standardised features on the train images' own axes are as good as they come."""

from __future__ import annotations

import numpy as np
import pytest

from thaw.probing.trial import LinearModel, fit_scaling


def features(count: int, width: int) -> np.ndarray:
    dice = np.random.default_rng(count)
    mixed = dice.normal(size=(count, width)) @ dice.normal(size=(width, width))
    return (3 * mixed + dice.normal(size=width)).astype(np.float32)


@pytest.mark.parametrize("count", [12, 60])
def test_a_classifier_folded_back_gives_the_same_logits_from_raw_features(count: int) -> None:
    everything = features(count + 5, 30)
    scaling = fit_scaling(everything[:count])
    seen = scaling.transform(everything)
    assert seen.shape[1] == min(count, 30)
    dice = np.random.default_rng(0)
    linear = LinearModel(dice.normal(size=(4, seen.shape[1])), dice.normal(size=4))
    assert np.allclose(scaling.fold_into(linear).compute_logits(everything), linear.compute_logits(seen), atol=1e-3)


def test_distances_between_train_images_and_ranks_of_distances_to_others_are_kept() -> None:
    everything = features(25, 40)
    turned, plain = (fit_scaling(everything[:20], way).transform(everything) for way in (True, False))

    def distances(seen: np.ndarray) -> np.ndarray:
        return np.linalg.norm(seen[:, None] - seen[None, :20], axis=2)

    assert np.allclose(distances(turned)[:20], distances(plain)[:20], atol=1e-4)
    assert (distances(turned)[20:].argsort(1) == distances(plain)[20:].argsort(1)).all()


def test_a_feature_that_never_changes_stays_finite() -> None:
    values = features(10, 4)
    values[:, 2] = 7.0
    scaling = fit_scaling(values)
    assert np.isfinite(scaling.transform(values)).all()
    assert np.abs(scaling.transform(values)[:, 2]).max() == 0.0


def test_train_features_have_mean_0_and_deviation_1() -> None:
    seen = fit_scaling(features(50, 6)).transform(features(50, 6))
    assert np.allclose(seen.mean(0), 0, atol=1e-5)
    assert np.allclose(seen.std(0), 1, atol=1e-5)
