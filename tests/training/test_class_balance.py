"""Classes of unequal size: weights of the loss, and sampling that draws each class equally often."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import TINY, get_only_run
from thaw.cli.train import launch
from thaw.data.augmentation import Augmentation
from thaw.data.batches import EpochBatchSampler, ImageDataset, class_weights
from thaw.data.image_store import ImageStore
from thaw.data.transforms import apply_augmentation

COUNT = 200
LABELS = np.array([7] * COUNT)  # of all samples; the train images are every other one, 90 of class 0 and 10 of class 1
TRAIN = np.arange(0, COUNT, 2)
LABELS[TRAIN] = [0] * 90 + [1] * 10


def draw_positions(epoch: int, seed: int = 0, world: int = 1) -> list[int]:
    processes = [EpochBatchSampler(TRAIN, 8, seed, epoch, rank, world, LABELS) for rank in range(world)]
    return [position for batches in processes for batch in batches for _, position in batch]


def test_weights_are_inverse_to_class_counts_with_mean_one() -> None:
    weights = class_weights(LABELS[TRAIN], 3)
    assert weights.tolist() == pytest.approx([100 / 180, 100 / 20, 0.0])
    assert weights[LABELS[TRAIN]].mean() == pytest.approx(1.0)


@pytest.mark.parametrize("epoch", [0, 1])
def test_an_epoch_draws_each_class_equally_often(epoch: int) -> None:
    positions = np.array(draw_positions(epoch)) % COUNT
    assert Counter(LABELS[positions].tolist()) == {0: 50, 1: 50}
    counts = Counter(positions.tolist())
    assert {counts[position] for position in TRAIN if LABELS[position] == 1} == {5}
    assert {counts[position] for position in TRAIN if LABELS[position] == 0} == {0, 1}


def test_drawn_samples_are_a_function_of_seed_and_epoch() -> None:
    assert draw_positions(3) == draw_positions(3)
    assert sorted(draw_positions(3)) != sorted(draw_positions(4))
    assert sorted(draw_positions(3)) != sorted(draw_positions(3, seed=1))


def test_processes_share_the_draw_of_an_epoch() -> None:
    assert sorted(draw_positions(2, world=3)) == sorted(draw_positions(2))


def test_copies_of_an_image_are_augmented_differently() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 24, 24, 3), dtype=np.uint8)
    store = ImageStore(pixels.ravel(), np.array([0, 1728]), np.array([[24, 24], [24, 24]]))
    images = ImageDataset(store, np.array([4, 5]), 16, Augmentation(scale=(0.2, 1.0)))
    batch = images.__getitems__([(0, 1), (0, 1 + 2), (0, 1 + 4)])
    assert (batch.labels.tolist(), batch.positions.tolist()) == ([5, 5, 5], [1, 1, 1])
    assert torch.equal(batch.images[0], batch.images[1])
    first, second, _ = apply_augmentation(batch.images, batch.augmentation_params, 16)
    assert not torch.allclose(first, second, atol=1.0)


def write_skewed_dataset(root: Path) -> Path:
    """Write 54 and 6 train images, and 30 test images of each class: noise around two similar gray levels."""
    rng = np.random.default_rng(0)
    for split, name, count in (("train", "a", 54), ("train", "b", 6), ("test", "a", 30), ("test", "b", 30)):
        (root / split / name).mkdir(parents=True)
        for index in range(count):
            gray = rng.normal({"a": 120, "b": 140}[name], 8) + rng.normal(0, 20, (32, 32, 3))
            Image.fromarray(gray.clip(0, 255).astype(np.uint8)).save(root / split / name / f"{index:02}.png")
    return root


def test_rare_classes_are_recognized_more_often(tmp_path: Path) -> None:
    data = ("dataset=folder", f"dataset.root={write_skewed_dataset(tmp_path / 'data')}", "dataset.fractions.val=0")
    recipe = (*data, "dataset.image_size=32", *TINY[6:], "strategy=fixed", "optimizer.learning_rate=0.01")
    recall = {}
    for balance in ("none", "weights", "sampling"):
        outputs = tmp_path / balance
        assert launch([*recipe, f"trainer.class_balance={balance}", f"output_dir={outputs}"]) == 0
        with (get_only_run(outputs) / "predictions.csv").open(newline="") as stream:
            rare = [row["prediction"] for row in csv.DictReader(stream) if row["label"] == "b"]
        recall[balance] = rare.count("b") / len(rare)
    assert recall["none"] < 0.1
    assert min(recall["weights"], recall["sampling"]) > 0.3
