"""One run on two devices: two CPU processes that exchange gradients by gloo. Started by thaw, by torchrun on two nodes,
or by srun, alone and in a sweep, they train as one process does with the same global batch."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.conftest import ROOT, TINY, command, only_run, typed
from tests.training.killed import killed_in_epoch
from thaw.cli.train import launch
from thaw.data.batches import EpochBatchSampler, SequentialBatchSampler
from thaw.training.distributed.collectives import _find_free_port, mismatched_tensors

# BatchNorm with the source's statistics: with the batch's own, two halves of a batch are not the batch.
GRADUAL = (
    *(one for one in TINY if not one.startswith("trainer.batch_size")),
    "dataset.characters=ABC",
    "dataset.train=12",  # 36 images: whole batches of 8, and a last one of 4
    "dataset.test=51",  # 153 images, as hymenoptera has: no number of processes but 3, 9, 17 or 51 divides them evenly
    "strategy=gradual",
    "strategy.l2_sp=0.01",
    "trainer.gradient_clip_val=1.0",
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


def runs(outputs: Path) -> dict[int, Path]:
    """The runs under `outputs`, by seed."""
    found = [file.parent for file in outputs.rglob("run.json")]
    by_seed = {json.loads((run / "run.json").read_text())["seed"]: run for run in found}
    assert len(by_seed) == len(found), "a run repeats another"
    return by_seed


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """What one process trains, from seeds 0 and 1."""
    outputs = tmp_path_factory.mktemp("alone")
    assert (
        launch(["-m", *GRADUAL, "seed=0,1", "feature_cache=off", "trainer.batch_size=8", f"output_dir={outputs}"]) == 0
    )
    return runs(outputs)


def assert_same(one: Path, other: Path) -> None:
    """Metrics, weights and predictions within rounding, and every test image counted once."""
    for before, after in zip(rows(one), rows(other), strict=True):
        for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert float(after[key]) == pytest.approx(float(before[key]), rel=1e-4), (key, before["epoch"])
    for name, value in state(one).items():
        assert torch.allclose(state(other)[name], value, atol=1e-5), name
    mine, its = (json.loads((run / "metrics.json").read_text()) for run in (one, other))
    assert mine["test"]["count"] == its["test"]["count"] == 153
    assert its["test"]["loss"] == pytest.approx(mine["test"]["loss"], rel=1e-4)
    assert [row["path"] for row in predictions(one)] == [row["path"] for row in predictions(other)]


def test_two_processes_train_as_one_with_the_same_global_batch(alone: dict[int, Path], tmp_path: Path) -> None:
    half = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.batch_size=4")
    shared = ("feature_cache=require", f"output_dir={tmp_path}")  # the features are computed by both, a half each
    two = typed(*GRADUAL, *half, *shared)
    assert two.returncode == 0, two.stderr
    assert two.stderr == ""
    assert "2 processes on this machine, DDP: batches of 2 x 4 = 8 images" in two.stdout
    assert_same(alone[0], only_run(tmp_path))


@pytest.mark.long
def test_two_processes_train_each_job_of_a_sweep(alone: dict[int, Path], tmp_path: Path) -> None:
    half = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.batch_size=4")
    two = typed("-m", *GRADUAL, *half, "seed=0,1", f"output_dir={tmp_path}")
    assert two.returncode == 0, two.stderr
    assert runs(tmp_path).keys() == {0, 1}
    for seed, run in runs(tmp_path).items():
        assert_same(alone[seed], run)


@pytest.mark.long
def test_two_nodes_under_torchrun_train_each_job_of_a_sweep(alone: dict[int, Path], tmp_path: Path) -> None:
    """The nodes share no cache, so each computes the features; node 1 makes no run directory."""
    half = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.batch_size=4")
    recipe = ("-m", *GRADUAL, *half, "feature_cache=require", "seed=0,1")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    torchrun += ["--master_addr=127.0.0.1", f"--master_port={_find_free_port()}"]
    nodes = []
    for node in (0, 1):
        line = [*torchrun, f"--node_rank={node}", *command(*recipe, f"output_dir={tmp_path / f'node{node}'}")[1:]]
        cache = {"THAW_CACHE": str(tmp_path / f"cache{node}")}
        nodes.append(subprocess.Popen(line, cwd=ROOT, env={**os.environ, **cache}, stderr=subprocess.PIPE, text=True))
    told = [node.communicate()[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told
    assert not (tmp_path / "node1").exists()
    kept = [{one.name for one in (tmp_path / f"cache{node}" / "features").glob("[!.]*")} for node in (0, 1)]
    assert kept[0]
    assert kept[0] == kept[1]
    for seed, run in runs(tmp_path / "node0").items():
        assert_same(alone[seed], run)
    assert json.loads((run / "run.json").read_text())["processes"] == {"devices": 1, "nodes": 2}


@pytest.mark.long
def test_a_job_that_fails_under_srun_leaves_the_next_one_sound(alone: dict[int, Path], tmp_path: Path) -> None:
    """SLURM's variables, without a SLURM: two tasks on one node."""
    recipe = (*GRADUAL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.batch_size=4", f"output_dir={tmp_path}")
    line = command("-m", *recipe, "optimizer.learning_rate=1e30,0.01")
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "1", "SLURM_NODEID": "0", "SLURM_JOB_ID": "7"}
    where = {"SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": str(_find_free_port())}
    tasks = []
    for task in ("0", "1"):
        environment = {**os.environ, **step, **where, "SLURM_LOCALID": task}
        tasks.append(subprocess.Popen(line, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
    told = [task.communicate()[1] for task in tasks]
    assert [task.returncode for task in tasks] == [1, 0], told
    assert "thaw: the loss is not finite any more." in told[0]
    assert told[1] == ""
    records = [json.loads(file.read_text()) for file in tmp_path.rglob("run.json")]
    assert sorted(record["status"] for record in records) == ["done", "failed"]
    (done,) = (file.parent for file in tmp_path.rglob("metrics.json"))
    assert_same(alone[0], done)


@pytest.mark.long
def test_weights_in_pieces_train_as_whole_ones_and_go_on_after_a_kill(alone: dict[int, Path], tmp_path: Path) -> None:
    """A kill of the first process ends the other too."""
    half = ("trainer=fsdp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.batch_size=4")
    killed_in_epoch(3, [*GRADUAL, *half, f"output_dir={tmp_path}"])
    run = only_run(tmp_path)
    _wait_until(lambda: not _companions(run))
    resumed = typed(f"resume={run}")
    assert resumed.returncode == 0, resumed.stderr
    assert resumed.stderr == ""
    assert_same(alone[0], run)
    moments = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    assert len(moments) > 3
    assert all(type(one["momentum_buffer"]) is torch.Tensor for one in moments.values())


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_gpus_train_as_two_processes_on_the_cpu(kind: str, alone: dict[int, Path], tmp_path: Path) -> None:
    half = (f"trainer={kind}", "trainer.devices=2", "trainer.batch_size=4", "trainer.precision=32-true")
    synchronised = () if kind == "fsdp" else ("trainer.sync_batchnorm=true",)  # of no effect where all are in eval
    two = typed(*GRADUAL, *half, *synchronised, "trainer.accelerator=gpu", f"output_dir={tmp_path}")
    assert two.returncode == 0, two.stderr
    mine, its = (json.loads((run / "metrics.json").read_text()) for run in (alone[0], only_run(tmp_path)))
    assert its["test"]["count"] == 153
    assert its["test"]["loss"] == pytest.approx(mine["test"]["loss"], rel=1e-2)


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
    found.put(mismatched_tensors(values))
    torch.distributed.destroy_process_group()


def test_batches_of_all_processes_are_those_of_one() -> None:
    positions = np.arange(100, 146)
    whole = list(EpochBatchSampler(positions, 8, seed=3))
    shares = [list(EpochBatchSampler(positions, 4, seed=3, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [sorted(first + second) for first, second in zip(*shares, strict=True)] == [sorted(one) for one in whole]


@pytest.mark.parametrize("count", [8, 43, 45, 46, 41])
def test_every_image_counts_the_same_in_whatever_share_it_is(count: int) -> None:
    batches = [EpochBatchSampler(np.arange(count), 4, seed=0, rank=rank, world_size=2) for rank in (0, 1)]
    for number in range(len(batches[0])):
        shares = [list(one)[number] for one in batches]
        assert min(len(share) for share in shares) >= 2
        for share, one in zip(shares, batches, strict=True):
            each = (
                one.compute_batch_weight(number) / len(share) / 2
            )  # a mean over the share, averaged over two processes
            assert each == pytest.approx(1 / sum(len(share) for share in shares))


@pytest.mark.parametrize(("count", "world"), [(153, 1), (153, 2), (153, 3), (33, 2), (65, 2), (4, 2)])
def test_evaluation_takes_every_image_once(count: int, world: int) -> None:
    parts = [SequentialBatchSampler(np.arange(count), 16, rank, world) for rank in range(world)]
    seen = [position for part in parts for batch in part for _, position in batch]
    assert sorted(seen) == list(range(count))
    assert min(len(batch) for part in parts for batch in part) > 0
    assert [len(list(part)) for part in parts] == [len(parts[0])] * world


def test_more_devices_than_images_allow_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch([*TINY, "dataset.val=1", "trainer.devices=3", f"output_dir={tmp_path}"]) == 2
    assert "4 val images" in capsys.readouterr().err


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
