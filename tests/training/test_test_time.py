"""Predictions from several views of an image."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from tests.conftest import TINY, get_only_run
from thaw.cli.train import launch
from thaw.data.augmentation import average_over_views, build_views
from thaw.data.factory import load_samples
from thaw.data.image import wrap_image
from thaw.data.resizing import resize_image
from thaw.inference.load import Classifier, load_checkpoint

CROPPED = (*TINY, "trainer.epochs=1", "dataset.train=4", "dataset.side=40", "dataset.crop=0.8")


def to_set(views: Tensor) -> set[bytes]:
    return {view.contiguous().numpy().tobytes() for view in views}


@pytest.mark.parametrize("sides", [(20, 20), (18, 26), (30, 16)])
def test_crops_equal_those_of_torchvision(sides: tuple[int, int]) -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, *sides), dtype=np.uint8))
    five = F.five_crop(image, [16, 16])
    assert to_set(build_views(image, 16, "five_crop")) == to_set(torch.stack(five))
    assert to_set(build_views(image, 16, "ten_crop")) == to_set(torch.stack(F.ten_crop(image, [16, 16])))
    assert to_set(build_views(image, 16, "flip")) == to_set(torch.stack([five[4], F.horizontal_flip(five[4])]))


def test_the_softmax_of_the_average_is_the_mean_softmax_of_the_views() -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 3, 2, 2) * 50  # far apart: sums of exponentials would overflow
    logits = average_over_views(lambda view_images: view_images.flatten(1), images)
    expected = images.flatten(2).softmax(2).mean(1)
    torch.testing.assert_close(logits.softmax(1), expected)
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(4))


def test_predictions_are_the_mean_over_views_and_validation_uses_one_view(tmp_path: Path) -> None:
    assert launch([*CROPPED, f"output_dir={tmp_path / 'plain'}"]) == 0
    assert launch([*CROPPED, "trainer.test_time_augmentation=ten_crop", f"output_dir={tmp_path / 'views'}"]) == 0
    plain_run, views_run = get_only_run(tmp_path / "plain"), get_only_run(tmp_path / "views")
    assert read_val_losses(plain_run) == read_val_losses(views_run)
    with (views_run / "predictions.csv").open(newline="") as stream:
        probabilities = {row["path"]: float(row["probability"]) for row in csv.DictReader(stream)}
    assert probabilities == pytest.approx(compute_highest_probabilities(load_checkpoint(views_run)), abs=2e-6)
    assert probabilities != pytest.approx(compute_highest_probabilities(load_checkpoint(views_run), "none"), abs=2e-3)


def read_val_losses(run: Path) -> list[str]:
    with (run / "history.csv").open(newline="") as stream:
        return [row["val_loss"] for row in csv.DictReader(stream)]


def compute_highest_probabilities(classifier: Classifier, kind: str = "ten_crop") -> dict[str, float]:
    recipe = classifier.recipe
    samples = load_samples(recipe)
    probabilities = {}
    for position in samples.get_positions("test"):
        path = samples.samples[position].path
        with Image.open(samples.root / path) as image:
            pixels = resize_image(wrap_image(image.convert("RGB")), classifier.preprocessing)
        views = build_views(torch.from_numpy(pixels.copy()).permute(2, 0, 1), 32, kind)
        probabilities[path] = classifier.predict_proba(views).mean(0).max().item()
    return probabilities


@pytest.mark.parametrize(("kind", "fix"), [("five_crop", "none"), ("ten_crop", "flip")])
def test_crops_of_images_that_the_network_sees_completely_are_rejected(
    kind: str, fix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = [*TINY, "dataset.crop=1.0", f"trainer.test_time_augmentation={kind}", f"output_dir={tmp_path}"]
    assert launch(recipe) == 2
    errors = capsys.readouterr().err
    assert "images of 32 x 32 pixels, all of which the network sees" in errors
    assert f"dataset.crop=0.875, or trainer.test_time_augmentation={fix}" in errors
