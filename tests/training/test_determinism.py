"""The same seed gives the same result."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import TINY
from thaw.cli.train import launch


def read_weights_of_runs(outputs: Path) -> list[dict[str, torch.Tensor]]:
    files = sorted(outputs.rglob("last.ckpt"))
    return [torch.load(file, weights_only=True)["state_dict"] for file in files]


def have_equal_weights(state: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(state[name], expected[name]) for name in state)


@pytest.mark.parametrize("workers", [1])
def test_worker_processes_do_not_change_the_result(tmp_path: Path, workers: int) -> None:
    recipe = (*TINY, "augment=crop_flip", "head.dropout=0.2")
    assert launch([*recipe, "trainer.num_workers=0", f"output_dir={tmp_path / 'none'}"]) == 0
    assert launch([*recipe, f"trainer.num_workers={workers}", f"output_dir={tmp_path / 'some'}"]) == 0
    assert have_equal_weights(*read_weights_of_runs(tmp_path / "none"), *read_weights_of_runs(tmp_path / "some"))


@pytest.mark.long
def test_the_store_of_decoded_images_does_not_change_the_result(tmp_path: Path) -> None:
    recipe = (*TINY, "augment=crop_flip", "dataset.side=40")
    assert launch([*recipe, f"output_dir={tmp_path / 'store'}"]) == 0
    assert launch([*recipe, "data.store_gib=0", f"output_dir={tmp_path / 'live'}"]) == 0
    assert have_equal_weights(*read_weights_of_runs(tmp_path / "store"), *read_weights_of_runs(tmp_path / "live"))
