"""How much random folds flatter a data set with groups, on features that the test makes."""

from __future__ import annotations

import numpy as np
import pytest

from thaw.probing.group_effect import GroupEffect, measure_group_effect

NUM_GROUPS, IMAGES_PER_GROUP, WIDTH = 40, 6, 30
GROUPS = np.repeat(np.arange(NUM_GROUPS), IMAGES_PER_GROUP)
LABELS = GROUPS % 2


def draw_features(class_strength: float, group_strength: float) -> np.ndarray:
    """Return features in which each class and each group has a direction of its own, and every image some noise."""
    rng = np.random.default_rng(0)
    classes, groups = rng.normal(size=(2, WIDTH)), rng.normal(size=(NUM_GROUPS, WIDTH))
    noise = rng.normal(size=(len(GROUPS), WIDTH))
    return class_strength * classes[LABELS] + group_strength * groups[GROUPS] + 0.5 * noise


def test_a_nuisance_that_follows_the_group_flatters_random_folds() -> None:
    effect = measure_group_effect(draw_features(0.1, 1.0), LABELS, GROUPS)
    assert effect.random_accuracy > effect.grouped_accuracy + 0.15
    assert effect.difference_ci95[0] > 0
    assert effect.describe().startswith(f"with random folds {effect.random_accuracy:.3f} instead of")
    assert effect.describe().endswith(f"images of one group on both sides flatter by {effect.difference:.3f}")


def test_without_a_nuisance_no_effect_is_reported() -> None:
    effect = measure_group_effect(draw_features(0.4, 0.0), LABELS, GROUPS)
    low, high = effect.difference_ci95
    assert low <= 0 <= high
    assert "no effect of the groups is seen" in effect.describe()


def test_the_result_depends_on_the_seed_alone() -> None:
    features = draw_features(0.1, 1.0)
    assert measure_group_effect(features, LABELS, GROUPS, seed=3) == measure_group_effect(
        features, LABELS, GROUPS, seed=3
    )


@pytest.mark.parametrize("rare_images", [1, 3])
def test_a_class_of_a_single_group_is_wrong_in_its_fold_and_no_error(rare_images: int) -> None:
    labels = LABELS.copy()
    labels[:rare_images] = 2
    effect = measure_group_effect(draw_features(1.0, 0.1), labels, GROUPS)
    assert 0.8 < effect.grouped_accuracy < 1


def test_groups_that_are_easier_are_not_said_to_flatter() -> None:
    assert GroupEffect(0.9, 0.8, (-0.15, -0.05), 5).describe().endswith("other groups are easier by 0.100")
