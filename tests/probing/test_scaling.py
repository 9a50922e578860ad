"""Features that are standardized and rotated are worth the same as raw ones."""

from __future__ import annotations

import numpy as np
import pytest

from thaw.probing.trial import LinearModel, fit_scaling


def build_features(num_images: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(num_images)
    correlated = rng.normal(size=(num_images, width)) @ rng.normal(size=(width, width))
    return (3 * correlated + rng.normal(size=width)).astype(np.float32)


@pytest.mark.parametrize("num_train", [12, 60])
def test_a_folded_classifier_computes_the_same_logits_from_raw_features(num_train: int) -> None:
    features = build_features(num_train + 5, 30)
    scaling = fit_scaling(features[:num_train])
    transformed = scaling.transform(features)
    assert transformed.shape[1] == min(num_train, 30)
    rng = np.random.default_rng(0)
    linear = LinearModel(rng.normal(size=(4, transformed.shape[1])), rng.normal(size=4))
    logits = scaling.fold_into(linear).compute_logits(features)
    assert np.allclose(logits, linear.compute_logits(transformed), atol=1e-3)


def test_rotation_preserves_distances_of_train_images_and_the_order_of_distances_to_others() -> None:
    features = build_features(25, 40)
    rotated, unrotated = (fit_scaling(features[:20], with_axes).transform(features) for with_axes in (True, False))

    def compute_distances(values: np.ndarray) -> np.ndarray:
        return np.linalg.norm(values[:, None] - values[None, :20], axis=2)

    assert np.allclose(compute_distances(rotated)[:20], compute_distances(unrotated)[:20], atol=1e-4)
    assert (compute_distances(rotated)[20:].argsort(1) == compute_distances(unrotated)[20:].argsort(1)).all()


def test_a_constant_feature_stays_finite() -> None:
    features = build_features(10, 4)
    features[:, 2] = 7.0
    scaling = fit_scaling(features)
    assert np.isfinite(scaling.transform(features)).all()
    assert np.abs(scaling.transform(features)[:, 2]).max() == 0.0


def test_train_features_have_mean_0_and_standard_deviation_1() -> None:
    transformed = fit_scaling(build_features(50, 6)).transform(build_features(50, 6))
    assert np.allclose(transformed.mean(0), 0, atol=1e-5)
    assert np.allclose(transformed.std(0), 1, atol=1e-5)
