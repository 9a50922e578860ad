"""One run on two devices: two CPU processes that exchange gradients by gloo."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import TINY, only_run, typed
from tests.training.killed import killed_in_epoch
from thaw.data.batches import EpochBatches, InOrder
from thaw.launch import launch
from thaw.training.ranks import differing

# BatchNorm with the source's statistics: with the batch's own, two halves of a batch are not the batch.
GRADUAL = (
    *(one for one in TINY if not one.startswith("trainer.batch_size")),
    "dataset.train=11",  # 44 images: whole batches of 8, and a last one of 4
    "strategy=gradual",
    "strategy.phases.unfreeze.batchnorm={all: eval}",
    "strategy.phases.unfreeze.unfreeze=['last:2']",
    "trainer.epochs=3",
    "optimizer=sgd",
    "backbone.memory_format=contiguous",
)


def state(run: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return content


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def predictions(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_two_processes_train_as_one_with_the_same_global_batch(tmp_path: Path) -> None:
    assert launch([*GRADUAL, "cache=off", "trainer.batch_size=8", f"output_dir={tmp_path / 'one'}"]) == 0
    shared = ("cache=require", f"output_dir={tmp_path / 'two'}")  # the features are computed by one and read by both
    two = typed(*GRADUAL, "trainer.batch_size=4", "trainer.devices=2", *shared)
    assert two.returncode == 0, two.stderr
    assert two.stderr == ""
    alone, together = only_run(tmp_path / "one"), only_run(tmp_path / "two")
    for before, after in zip(rows(alone), rows(together), strict=True):
        for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert float(after[key]) == pytest.approx(float(before[key]), rel=1e-4), (key, before["epoch"])
    for name, value in state(alone).items():
        assert torch.allclose(state(together)[name], value, atol=1e-5), name
    one, both = (json.loads((run / "metrics.json").read_text()) for run in (alone, together))
    assert both["test"]["count"] == one["test"]["count"] == 20
    assert both["test"]["loss"] == pytest.approx(one["test"]["loss"], rel=1e-4)
    assert [row["path"] for row in predictions(together)] == [row["path"] for row in predictions(alone)]


def test_processes_that_differ_by_a_bit_are_told_apart(tmp_path: Path) -> None:
    found = torch.multiprocessing.get_context("spawn").Queue()
    torch.multiprocessing.spawn(_compare, (str(tmp_path / "group"), found), nprocs=2)
    assert found.get() == found.get() == ["moved", "swapped"]


def _compare(rank: int, file: str, found: torch.multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    values = {
        "same": torch.arange(3.0),
        "moved": torch.ones(2) if rank else torch.tensor([1.0, 1.0 + 2**-23]),
        "count": torch.tensor(7),
        "swapped": torch.tensor([[1, 2]] if rank else [[2, 1]]),
    }
    found.put(differing(values))
    torch.distributed.destroy_process_group()


def test_batches_of_all_processes_are_those_of_one() -> None:
    positions = np.arange(100, 146)
    whole = list(EpochBatches(positions, 8, seed=3))
    shares = [list(EpochBatches(positions, 4, seed=3, rank=rank, world=2)) for rank in (0, 1)]
    assert [sorted(first + second) for first, second in zip(*shares, strict=True)] == [sorted(one) for one in whole]


@pytest.mark.parametrize("count", [8, 43, 45, 46, 41])
def test_every_image_counts_the_same_in_whatever_share_it_is(count: int) -> None:
    batches = [EpochBatches(np.arange(count), 4, seed=0, rank=rank, world=2) for rank in (0, 1)]
    for number in range(len(batches[0])):
        shares = [list(one)[number] for one in batches]
        assert min(len(share) for share in shares) >= 2
        for share, one in zip(shares, batches, strict=True):
            each = one.weight(number) / len(share) / 2  # a mean over the share, averaged over two processes
            assert each == pytest.approx(1 / sum(len(share) for share in shares))


def test_evaluation_takes_every_image_once() -> None:
    parts = [InOrder(np.arange(153), 16, rank, 3) for rank in range(3)]
    seen = [position for part in parts for batch in part for _, position in batch]
    assert sorted(seen) == list(range(153))
    assert [len(list(part)) for part in parts] == [len(part) for part in parts]


def test_more_devices_than_images_allow_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch([*TINY, "dataset.val=1", "trainer.devices=3", f"output_dir={tmp_path}"]) == 2
    assert "4 val images" in capsys.readouterr().err


def test_killing_the_first_process_ends_the_other_and_the_run_goes_on(tmp_path: Path) -> None:
    recipe = [*GRADUAL, "trainer.batch_size=4", "trainer.devices=2", "trainer.epochs=4"]
    killed_in_epoch(3, [*recipe, f"output_dir={tmp_path}"])
    run = only_run(tmp_path)
    _wait_until(lambda: not _companions(run))
    resumed = typed(f"resume={run}")
    assert resumed.returncode == 0, resumed.stderr
    assert [row["epoch"] for row in rows(run)] == ["1", "2", "3", "4"]


def _companions(run: Path) -> list[int]:
    commands = {int(file.parent.name): file for file in Path("/proc").glob("[0-9]*/cmdline")}
    return [number for number, file in commands.items() if str(run).encode() in _read(file)]


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
