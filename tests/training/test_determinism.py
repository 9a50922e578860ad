"""One seed, one result."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.conftest import TINY
from thaw.cli.train import launch


def weights_of_each_run(outputs: Path) -> list[dict[str, torch.Tensor]]:
    files = sorted(outputs.rglob("last.ckpt"))
    return [torch.load(file, weights_only=True)["state_dict"] for file in files]


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("workers", [1])
def test_workers_change_nothing(tmp_path: Path, workers: int) -> None:
    recipe = (*TINY, "augment=crop_flip", "head.dropout=0.2")
    assert launch([*recipe, "trainer.num_workers=0", f"output_dir={tmp_path / 'none'}"]) == 0
    assert launch([*recipe, f"trainer.num_workers={workers}", f"output_dir={tmp_path / 'some'}"]) == 0
    assert same(*weights_of_each_run(tmp_path / "none"), *weights_of_each_run(tmp_path / "some"))


def test_without_the_store_of_decoded_images_the_result_is_the_same(tmp_path: Path) -> None:
    recipe = (*TINY, "augment=crop_flip", "dataset.side=40")
    assert launch([*recipe, f"output_dir={tmp_path / 'store'}"]) == 0
    assert launch([*recipe, "data.store_gib=0", f"output_dir={tmp_path / 'live'}"]) == 0
    assert same(*weights_of_each_run(tmp_path / "store"), *weights_of_each_run(tmp_path / "live"))
