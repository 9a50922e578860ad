"""Devices and nodes of a recipe are resolved on this machine, with and without a launcher."""

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
    "SLURM_PROCID": "5",  # tasks are distributed over the nodes in turn
}


def compose_trainer(*overrides: str) -> TrainerConfig:
    return compose_recipe(overrides).trainer


@pytest.fixture(autouse=True)
def remove_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SRUN):
        monkeypatch.delenv(name, raising=False)
    detect_launcher.cache_clear()
    yield
    detect_launcher.cache_clear()


def simulate_launcher(launcher: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    detect_launcher.cache_clear()


def test_without_a_launcher_the_default_is_one_process() -> None:
    assert resolve_process_topology(compose_trainer()) == ProcessTopology(1, 1)
    assert resolve_process_topology(compose_trainer("trainer.devices=3")) == ProcessTopology(3, 1)


@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_all_gpus_on_a_cpu_are_rejected(kind: str) -> None:
    with pytest.raises(UserError, match=r"trainer\.devices=2, for two processes on the CPU"):
        resolve_process_topology(compose_trainer(f"trainer={kind}", "trainer.accelerator=cpu"))


def test_each_gpu_has_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    assert resolve_process_topology(compose_trainer("trainer=ddp")) == ProcessTopology(4, 1)
    assert resolve_process_topology(compose_trainer()) == ProcessTopology(1, 1)


def test_several_nodes_require_a_launcher() -> None:
    with pytest.raises(UserError, match="torchrun --nnodes=2"):
        resolve_process_topology(compose_trainer("trainer=ddp", "trainer.devices=2", "trainer.num_nodes=2"))


@pytest.mark.parametrize("launcher", [TORCHRUN, SRUN], ids=["torchrun", "srun"])
def test_a_launcher_determines_the_processes(launcher: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    simulate_launcher(launcher, monkeypatch)
    environment = detect_launcher()
    assert environment is not None
    assert (environment.world_size, environment.rank) == (8, 6)
    assert resolve_process_topology(compose_trainer("trainer=ddp", "trainer.accelerator=cpu")) == ProcessTopology(4, 2)
    assert resolve_process_topology(
        compose_trainer("trainer=fsdp", "trainer.devices=4", "trainer.num_nodes=2")
    ) == ProcessTopology(4, 2)


@pytest.mark.parametrize(
    "overrides", [(), ("trainer=ddp", "trainer.devices=2"), ("trainer=ddp", "trainer.num_nodes=3")]
)
def test_settings_that_contradict_the_launcher_are_rejected(
    overrides: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    simulate_launcher(TORCHRUN, monkeypatch)
    with pytest.raises(UserError, match="torchrun has started 4 on each of 2 nodes"):
        resolve_process_topology(compose_trainer(*overrides))


def test_a_single_slurm_task_starts_its_own_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a job of Hydra's submitit launcher."""
    simulate_launcher({**SRUN, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, monkeypatch)
    assert detect_launcher() is None
    assert resolve_process_topology(compose_trainer("trainer.devices=2")) == ProcessTopology(2, 1)


def test_sync_batchnorm_requires_gpus() -> None:
    with pytest.raises(UserError, match=r"trainer\.sync_batchnorm=false"):
        check_sync_batchnorm(compose_trainer("trainer=ddp", "trainer.sync_batchnorm=true"), "cpu")
