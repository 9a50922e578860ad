"""Accumulated gradients: every image of an optimizer step counts the same, whatever the sizes of its batches."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.conftest import get_only_run
from tests.images import write_image_folder
from thaw.cli.train import launch
from thaw.config.compose import compose_recipe
from thaw.data.batches import EpochBatchSampler
from thaw.training.train import _build_memory_error


def train_head(data: Path, outputs: Path, *overrides: str) -> dict[str, Tensor]:
    """Train with frozen BatchNorm and return the weights of the last epoch."""
    recipe = ("dataset=folder", f"dataset.root={data}", "dataset.image_size=32", "trainer.accelerator=cpu")
    training = ("strategy=fixed", "optimizer=sgd", "optimizer.learning_rate=0.01", "scheduler=constant")
    loss = ("trainer.class_balance=weights", "trainer.label_smoothing=0.1")
    defaults = (*loss, "trainer.epochs=1", "trainer.threads=1")
    assert launch([*recipe, *training, *defaults, *overrides, f"output_dir={outputs}"]) == 0
    checkpoint = torch.load(get_only_run(outputs) / "checkpoints" / "last.ckpt", weights_only=True)
    return {name: value for name, value in checkpoint["state_dict"].items() if ".head." in name}


def test_an_optimizer_step_is_the_same_however_its_images_are_cut_into_batches(tmp_path: Path) -> None:
    data = write_image_folder(tmp_path / "data", {"train": 9, "val": 2, "test": 2}, classes=("a", "b"))
    for index in range(4):
        (data / "train" / "a" / f"{index:02d}.png").unlink()  # so that the weights of the classes differ
    expected = train_head(data, tmp_path / "whole", "trainer.batch_size=14")
    for batch_size, accumulate in ((6, 3), (4, 5), (14, 8)):
        batches = (f"trainer.batch_size={batch_size}", f"trainer.accumulate_grad_batches={accumulate}")
        weights = train_head(data, tmp_path / f"{batch_size}x{accumulate}", *batches)
        for name, value in weights.items():
            distance = (value - expected[name]).norm() / expected[name].norm()
            assert distance < 1e-6, f"{name} with batches of {batch_size} x {accumulate}"


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("accumulate", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [9, 18, 31, 32, 50])
def test_the_weights_of_all_processes_and_batches_give_each_image_of_a_step_the_same_share(
    count: int, accumulate: int, world_size: int
) -> None:
    samplers = [
        EpochBatchSampler(np.arange(count), 4, 0, rank=rank, world_size=world_size) for rank in range(world_size)
    ]
    batches = list(zip(*(sampler.iter_positions() for sampler in samplers), strict=True))
    for first in range(0, len(batches), accumulate):
        group = list(enumerate(batches))[first : first + accumulate]
        step_count = sum(len(share) for _, shares in group for share in shares)
        for index, shares in group:
            for sampler, share in zip(samplers, shares, strict=True):
                # a loss is the mean over its share, averaged over the processes
                weight = sampler.compute_batch_weight(index, accumulate) / len(share) / world_size
                assert weight == pytest.approx(1 / step_count, rel=1e-12)


def test_single_batches_keep_the_bits_of_the_loss() -> None:
    sampler = EpochBatchSampler(np.arange(26), 4, 0)
    assert [sampler.compute_batch_weight(index) for index in range(7)] == [1.0] * 7


def test_the_fix_for_a_full_gpu_is_smaller_and_keeps_the_images_of_a_step() -> None:
    settings = compose_recipe(["trainer.accumulate_grad_batches=3"]).trainer
    for batch_size in range(2, 40):
        (problem,) = _build_memory_error(settings.model_copy(update={"batch_size": batch_size})).problems
        sizes = [int(size) for size in re.findall(r"trainer\.\w+=(\d+)", problem.fix)]
        if batch_size <= 3:
            assert not sizes
            continue
        fixed_size, accumulate = sizes
        assert 2 <= fixed_size < batch_size
        assert fixed_size * accumulate == 3 * (batch_size - ("one image fewer" in problem.fix))
