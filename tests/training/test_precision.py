"""Trainings in each precision, with every kind of augmentation."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TINY, get_only_run
from thaw.cli.train import launch
from thaw.runs.run import Run

EVERY_CHANGE = (
    "augment=crop_flip_rotate",
    "augment.color_jitter={brightness: 0.3, contrast: 0.3, saturation: 0.3, hue: 0.1}",
    "augment.random_erasing.probability=0.5",
    "augment.mixup.alpha=0.4",
    "augment.cutmix.alpha=1.0",
    "augment.policy=rand_augment",
)


@pytest.mark.parametrize("precision", ["64-true", pytest.param("bf16-mixed", marks=pytest.mark.long)])
def test_augmented_images_train_in_each_precision(precision: str, tmp_path: Path) -> None:
    overrides = (*EVERY_CHANGE, "trainer.epochs=1", "dataset.train=8", f"trainer.precision={precision}")
    assert launch([*TINY, *overrides, f"output_dir={tmp_path}"]) == 0
    assert len(Run(get_only_run(tmp_path)).read_history()) == 1
