"""A run on two devices: two CPU processes that exchange gradients through gloo.

Started by thaw, by torchrun on two nodes, or by srun, alone and in a sweep, they train like one process with the same
global batch.
"""

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

from tests.conftest import ROOT, TINY, build_train_command, get_only_run, run_train_script
from tests.training.killed import kill_in_epoch
from thaw.cli.train import launch
from thaw.data.batches import EpochBatchSampler, SequentialBatchSampler
from thaw.training.distributed.collectives import _find_free_port, mismatched_tensors

# BatchNorm with the pretrained statistics: with those of the batch, two halves of a batch give another result.
GRADUAL = (
    *(override for override in TINY if not override.startswith("trainer.batch_size")),
    "dataset.characters=ABC",
    "dataset.train=12",  # 36 images: whole batches of 8, and a last one of 4
    "dataset.test=51",  # 153 images, as in hymenoptera, which only 3, 9, 17 or 51 processes share evenly
    "strategy=gradual",
    "strategy.l2_sp=0.01",
    "trainer.gradient_clip_val=1.0",
    "strategy.phases.unfreeze.batchnorm={all: eval}",
    "strategy.phases.unfreeze.unfreeze=['last:2']",
    "trainer.epochs=3",
    "optimizer=sgd",
    "backbone.memory_format=contiguous",
)


def read_state(run: Path) -> dict[str, torch.Tensor]:
    content: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return content


def read_history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def read_predictions(run: Path) -> list[dict[str, str]]:
    with (run / "predictions.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def find_runs_by_seed(outputs: Path) -> dict[int, Path]:
    """Return the runs under `outputs` by seed."""
    directories = [file.parent for file in outputs.rglob("run.json")]
    by_seed = {json.loads((run / "run.json").read_text())["seed"]: run for run in directories}
    assert len(by_seed) == len(directories), "two runs have the same seed"
    return by_seed


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Runs of a single process with seeds 0 and 1."""
    outputs = tmp_path_factory.mktemp("alone")
    assert (
        launch(["-m", *GRADUAL, "seed=0,1", "feature_cache=off", "trainer.batch_size=8", f"output_dir={outputs}"]) == 0
    )
    return find_runs_by_seed(outputs)


def assert_same_training(expected_run: Path, run: Path) -> None:
    """Compare metrics, weights and predictions within rounding; every test image counts once."""
    for expected_row, row in zip(read_history(expected_run), read_history(run), strict=True):
        for key in ("train_loss", "train_accuracy", "val_loss", "val_accuracy"):
            assert float(row[key]) == pytest.approx(float(expected_row[key]), rel=1e-4), (key, expected_row["epoch"])
    for name, value in read_state(expected_run).items():
        assert torch.allclose(read_state(run)[name], value, atol=1e-5), name
    expected_metrics, metrics = (json.loads((run / "metrics.json").read_text()) for run in (expected_run, run))
    assert expected_metrics["test"]["count"] == metrics["test"]["count"] == 153
    assert metrics["test"]["loss"] == pytest.approx(expected_metrics["test"]["loss"], rel=1e-4)
    assert [row["path"] for row in read_predictions(expected_run)] == [row["path"] for row in read_predictions(run)]


def test_two_processes_train_as_one_with_the_same_global_batch(references: dict[int, Path], tmp_path: Path) -> None:
    overrides = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.batch_size=4")
    outputs = ("feature_cache=require", f"output_dir={tmp_path}")  # each process computes half of the features
    result = run_train_script(*GRADUAL, *overrides, *outputs)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "2 processes on this machine, DDP: batches of 2 x 4 = 8 images" in result.stdout
    assert_same_training(references[0], get_only_run(tmp_path))


@pytest.mark.long
def test_two_processes_train_each_job_of_a_sweep(references: dict[int, Path], tmp_path: Path) -> None:
    overrides = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.batch_size=4")
    result = run_train_script("-m", *GRADUAL, *overrides, "seed=0,1", f"output_dir={tmp_path}")
    assert result.returncode == 0, result.stderr
    assert find_runs_by_seed(tmp_path).keys() == {0, 1}
    for seed, run in find_runs_by_seed(tmp_path).items():
        assert_same_training(references[seed], run)


@pytest.mark.long
def test_two_nodes_under_torchrun_train_each_job_of_a_sweep(references: dict[int, Path], tmp_path: Path) -> None:
    """The nodes share no cache, so each computes the features; node 1 creates no run directory."""
    overrides = ("trainer=ddp", "trainer.accelerator=cpu", "trainer.batch_size=4")
    arguments = ("-m", *GRADUAL, *overrides, "feature_cache=require", "seed=0,1")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc_per_node=1"]
    torchrun += ["--master_addr=127.0.0.1", f"--master_port={_find_free_port()}"]
    nodes = []
    for node in (0, 1):
        line = [
            *torchrun,
            f"--node_rank={node}",
            *build_train_command(*arguments, f"output_dir={tmp_path / f'node{node}'}")[1:],
        ]
        cache = {"THAW_CACHE": str(tmp_path / f"cache{node}")}
        nodes.append(subprocess.Popen(line, cwd=ROOT, env={**os.environ, **cache}, stderr=subprocess.PIPE, text=True))
    errors = [node.communicate()[1] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors
    assert not (tmp_path / "node1").exists()
    cache_keys = [{folder.name for folder in (tmp_path / f"cache{node}" / "features").glob("[!.]*")} for node in (0, 1)]
    assert cache_keys[0]
    assert cache_keys[0] == cache_keys[1]
    for seed, run in find_runs_by_seed(tmp_path / "node0").items():
        assert_same_training(references[seed], run)
    assert json.loads((run / "run.json").read_text())["processes"] == {"devices": 1, "nodes": 2}


@pytest.mark.long
def test_a_failed_job_under_srun_does_not_affect_the_next(references: dict[int, Path], tmp_path: Path) -> None:
    """Two tasks on one node, with the variables of SLURM and without SLURM."""
    recipe = (*GRADUAL, "trainer=ddp", "trainer.accelerator=cpu", "trainer.batch_size=4", f"output_dir={tmp_path}")
    job_command = build_train_command("-m", *recipe, "optimizer.learning_rate=1e30,0.01")
    step = {
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NODEID": "0",
        "SLURM_JOB_ID": "7",
    }
    address = {"SLURM_STEP_NODELIST": "localhost", "MASTER_PORT": str(_find_free_port())}
    tasks = []
    for task in ("0", "1"):
        environment = {**os.environ, **step, **address, "SLURM_LOCALID": task}
        tasks.append(subprocess.Popen(job_command, cwd=ROOT, env=environment, stderr=subprocess.PIPE, text=True))
    errors = [task.communicate()[1] for task in tasks]
    assert [task.returncode for task in tasks] == [1, 0], errors
    assert "thaw: the loss is not finite." in errors[0]
    assert errors[1] == ""
    records = [json.loads(file.read_text()) for file in tmp_path.rglob("run.json")]
    assert sorted(record["status"] for record in records) == ["done", "failed"]
    (finished_run,) = (file.parent for file in tmp_path.rglob("metrics.json"))
    assert_same_training(references[0], finished_run)


@pytest.mark.long
def test_sharded_weights_train_as_full_ones_and_resume_after_a_kill(
    references: dict[int, Path], tmp_path: Path
) -> None:
    """Killing the first process ends the other too."""
    overrides = ("trainer=fsdp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.batch_size=4")
    kill_in_epoch(3, [*GRADUAL, *overrides, f"output_dir={tmp_path}"])
    run = get_only_run(tmp_path)
    _wait_until(lambda: not _find_workers(run))
    result = run_train_script(f"resume={run}")
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert_same_training(references[0], run)
    optimizer_state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["optimizer_states"][0]["state"]
    assert len(optimizer_state) > 3
    assert all(type(moments["momentum_buffer"]) is torch.Tensor for moments in optimizer_state.values())


@pytest.mark.gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs")
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_gpus_train_as_two_processes_on_the_cpu(kind: str, references: dict[int, Path], tmp_path: Path) -> None:
    overrides = (f"trainer={kind}", "trainer.devices=2", "trainer.batch_size=4", "trainer.precision=32-true")
    batchnorm_overrides = (
        () if kind == "fsdp" else ("trainer.sync_batchnorm=true",)
    )  # no effect here: BatchNorm is in evaluation mode
    result = run_train_script(
        *GRADUAL, *overrides, *batchnorm_overrides, "trainer.accelerator=gpu", f"output_dir={tmp_path}"
    )
    assert result.returncode == 0, result.stderr
    expected_metrics, metrics = (
        json.loads((run / "metrics.json").read_text()) for run in (references[0], get_only_run(tmp_path))
    )
    assert metrics["test"]["count"] == 153
    assert metrics["test"]["loss"] == pytest.approx(expected_metrics["test"]["loss"], rel=1e-2)


def test_tensors_that_differ_by_a_bit_between_processes_are_found(tmp_path: Path) -> None:
    queue = torch.multiprocessing.get_context("spawn").Queue()
    torch.multiprocessing.spawn(_compare, (str(tmp_path / "group"), queue), nprocs=2)
    assert queue.get() == queue.get() == ["moved", "swapped"]


def _compare(rank: int, file: str, queue: torch.multiprocessing.Queue) -> None:  # type: ignore[type-arg]
    torch.distributed.init_process_group("gloo", f"file://{file}", rank=rank, world_size=2)
    values = {
        "same": torch.arange(3.0),
        "moved": torch.ones(2) if rank else torch.tensor([1.0, 1.0 + 2**-23]),
        "count": torch.tensor(7),
        "swapped": torch.tensor([[1, 2]] if rank else [[2, 1]]),
    }
    queue.put(mismatched_tensors(values))
    torch.distributed.destroy_process_group()


def test_the_shares_of_all_processes_form_the_batches_of_a_single_process() -> None:
    positions = np.arange(100, 146)
    batches = list(EpochBatchSampler(positions, 8, seed=3))
    shares = [list(EpochBatchSampler(positions, 4, seed=3, rank=rank, world_size=2)) for rank in (0, 1)]
    assert [sorted(first + second) for first, second in zip(*shares, strict=True)] == [
        sorted(batch) for batch in batches
    ]


@pytest.mark.parametrize("count", [8, 43, 45, 46, 41])
def test_every_image_counts_the_same_in_every_share(count: int) -> None:
    samplers = [EpochBatchSampler(np.arange(count), 4, seed=0, rank=rank, world_size=2) for rank in (0, 1)]
    for batch_index in range(len(samplers[0])):
        shares = [list(sampler)[batch_index] for sampler in samplers]
        assert min(len(share) for share in shares) >= 2
        for share, sampler in zip(shares, samplers, strict=True):
            weight = (
                sampler.compute_batch_weight(batch_index) / len(share) / 2
            )  # a mean over the share, averaged over two processes
            assert weight == pytest.approx(1 / sum(len(share) for share in shares))


@pytest.mark.parametrize(("count", "world_size"), [(153, 1), (153, 2), (153, 3), (33, 2), (65, 2), (4, 2)])
def test_evaluation_uses_every_image_once(count: int, world_size: int) -> None:
    parts = [SequentialBatchSampler(np.arange(count), 16, rank, world_size) for rank in range(world_size)]
    evaluated_positions = [position for part in parts for batch in part for _, position in batch]
    assert sorted(evaluated_positions) == list(range(count))
    assert min(len(batch) for part in parts for batch in part) > 0
    assert [len(list(part)) for part in parts] == [len(parts[0])] * world_size


def test_too_many_devices_for_the_images_are_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch([*TINY, "dataset.val=1", "trainer.devices=3", f"output_dir={tmp_path}"]) == 2
    assert "4 val images" in capsys.readouterr().err


def _find_workers(run: Path) -> list[int]:
    commands = {int(file.parent.name): file for file in Path("/proc").glob("[0-9]*/cmdline")}
    return [process_id for process_id, file in commands.items() if str(run).encode() in _read_bytes(file)]


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def _wait_until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
