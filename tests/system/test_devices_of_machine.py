"""What a recipe's devices and nodes mean on a machine, by itself and under a launcher."""

from __future__ import annotations

import pytest
import torch

from thaw.config.compose import compose_recipe
from thaw.config.errors import UserError
from thaw.config.schema import TrainerConfig
from thaw.system.devices import ProcessTopology, check_sync_batchnorm, resolve_process_topology
from thaw.system.launcher import detect_launcher

TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "x",
    "WORLD_SIZE": "8",
    "LOCAL_WORLD_SIZE": "4",
    "GROUP_RANK": "1",
    "LOCAL_RANK": "2",
}
SRUN = {
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_NODEID": "1",
    "SLURM_LOCALID": "2",
    "SLURM_PROCID": "5",  # tasks dealt out over the nodes in turn
}


def trainer(*overrides: str) -> TrainerConfig:
    return compose_recipe(overrides).trainer


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SRUN):
        monkeypatch.delenv(name, raising=False)
    detect_launcher.cache_clear()
    yield
    detect_launcher.cache_clear()


def under(launcher: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    detect_launcher.cache_clear()


def test_by_itself_a_run_is_one_process() -> None:
    assert resolve_process_topology(trainer()) == ProcessTopology(1, 1)
    assert resolve_process_topology(trainer("trainer.devices=3")) == ProcessTopology(3, 1)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_all_gpus_are_none_on_a_cpu(kind: str) -> None:
    with pytest.raises(UserError, match=r"trainer\.devices=2, for two processes on the CPU"):
        resolve_process_topology(trainer(f"trainer={kind}", "trainer.accelerator=cpu"))


def test_all_gpus_have_a_process_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert resolve_process_topology(trainer("trainer=ddp")) == ProcessTopology(4, 1)
    assert resolve_process_topology(trainer()) == ProcessTopology(1, 1)


def test_several_nodes_need_a_launcher() -> None:
    with pytest.raises(UserError, match="torchrun --nnodes=2"):
        resolve_process_topology(trainer("trainer=ddp", "trainer.devices=2", "trainer.num_nodes=2"))


@pytest.mark.parametrize("launcher", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
def test_a_launcher_says_how_many(launcher: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    under(launcher, monkeypatch)
    here = detect_launcher()
    assert here is not None
    assert (here.world_size, here.rank) == (8, 6)
    assert resolve_process_topology(trainer("trainer=ddp", "trainer.accelerator=cpu")) == ProcessTopology(4, 2)
    assert resolve_process_topology(
        trainer("trainer=fsdp", "trainer.devices=4", "trainer.num_nodes=2")
    ) == ProcessTopology(4, 2)


@pytest.mark.parametrize("asked", [(), ("trainer=ddp", "trainer.devices=2"), ("trainer=ddp", "trainer.num_nodes=3")])
def test_other_processes_than_a_launcher_has_started_are_refused(
    asked: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    under(TORCHRUN, monkeypatch)
    with pytest.raises(UserError, match="torchrun has started 4 on each of 2 nodes"):
        resolve_process_topology(trainer(*asked))


def test_a_single_task_of_slurm_starts_its_own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a job of Hydra's submitit launcher."""
    under({**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, monkeypatch)
    assert detect_launcher() is None
    assert resolve_process_topology(trainer("trainer.devices=2")) == ProcessTopology(2, 1)


def test_batchnorm_is_synchronised_on_gpus_alone() -> None:
    with pytest.raises(UserError, match=r"trainer\.sync_batchnorm=false"):
        check_sync_batchnorm(trainer("trainer=ddp", "trainer.sync_batchnorm=true"), "cpu")
