"""The hardware of the machine, and what `auto` in a recipe means on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from thaw.config.errors import Problem, UserError
from thaw.config.schema import BackboneConfig, TrainerConfig
from thaw.system.launcher import detect_launcher
from thaw.system.process import available_cpus

CPUINFO_FILE = Path("/proc/cpuinfo")
BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # the last is ARM's
FIRST_GPU_ENV = "THAW_FIRST_GPU"  # in the environment, so that the other processes of a run know it too


@dataclass(frozen=True)
class ProcessTopology:
    """The processes that train one run: `devices` on each of `nodes` machines, one process per device."""

    devices: int
    nodes: int = 1

    @property
    def world_size(self) -> int:
        """The number of processes."""
        return self.devices * self.nodes

    def to_dict(self) -> dict[str, int]:
        """Return the topology as `run.json` holds it."""
        return asdict(self)


@dataclass(frozen=True)
class Devices:
    """What a run trains on. `accelerator` is `gpu` or `cpu`. `is_fsdp`: each process holds a shard of every weight."""

    accelerator: str
    topology: ProcessTopology
    is_fsdp: bool

    @property
    def is_on_gpu(self) -> bool:
        """Whether the accelerator is a GPU."""
        return self.accelerator == "gpu"

    def get_device(self, rank: int) -> torch.device:
        """Return the device of process `rank` of the run."""
        return get_device(self.accelerator, rank % self.topology.devices)


def resolve_devices(trainer: TrainerConfig) -> Devices:
    """Resolve accelerator and processes of a recipe on this machine.

    Raises:
        UserError: if the machine, or the launcher, does not offer what the recipe asks for.
    """
    topology, accelerator = resolve_process_topology(trainer), resolve_accelerator(trainer)
    check_precision(trainer, accelerator)
    check_sync_batchnorm(trainer, accelerator)
    is_fsdp = trainer.parallel == "fsdp" and topology.world_size > 1
    return Devices(accelerator, topology, is_fsdp)


def resolve_process_topology(trainer: TrainerConfig) -> ProcessTopology:
    """Resolve `trainer.devices` and `trainer.num_nodes` on this machine.

    Raises:
        UserError: if there are no GPUs to count, or a launcher has started other processes than the recipe asks for.
    """
    launcher = detect_launcher()
    if launcher is None:
        if trainer.num_nodes not in ("auto", 1):
            subject = f"trainer.num_nodes={trainer.num_nodes}"
            fix = f"torchrun --nnodes={trainer.num_nodes} ... train.py ..., or srun (docs/devices.md)"
            problem = Problem(subject, "a process that no launcher has started", fix=fix)
            raise UserError("one machine alone.", [problem])
        return ProcessTopology(_count_devices(trainer))
    requested = ProcessTopology(
        _resolve_auto(trainer.devices, 1 if trainer.parallel == "auto" else launcher.devices),
        _resolve_auto(trainer.num_nodes, 1 if trainer.parallel == "auto" else launcher.nodes),
    )
    if requested != ProcessTopology(launcher.devices, launcher.nodes):
        got = f"{launcher.name} has started {launcher.devices} on each of {launcher.nodes} nodes"
        subject = f"trainer.devices={requested.devices} trainer.num_nodes={requested.nodes}"
        raise UserError("other processes than asked for.", [Problem(subject, got, fix="trainer=ddp, or trainer=fsdp")])
    return requested


def _resolve_auto(value: int | str, auto_value: int) -> int:
    return value if isinstance(value, int) else auto_value


def _count_devices(trainer: TrainerConfig) -> int:
    if isinstance(trainer.devices, int):
        return trainer.devices
    if trainer.parallel == "auto":
        return 1
    if resolve_accelerator(trainer) == "cpu":
        subject = f"trainer.parallel={trainer.parallel} with trainer.devices=auto"
        fix = "trainer.devices=2, for two processes on the CPU"
        raise UserError("no GPUs to count.", [Problem(subject, "no GPU here", "a process for each GPU", fix)])
    return max(1, torch.cuda.device_count())


def resolve_accelerator(trainer: TrainerConfig) -> str:
    """Return `gpu` or `cpu`.

    Raises:
        UserError: if the recipe asks for a GPU and there is none, or too few.
    """
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if trainer.accelerator == "gpu" and not has_gpu:
        problem = Problem("trainer.accelerator=gpu", "torch sees no GPU here", fix="trainer.accelerator=auto")
        raise UserError("no GPU.", [problem])
    accelerator = "gpu" if has_gpu and trainer.accelerator != "cpu" else "cpu"
    gpu_count = torch.cuda.device_count()
    if accelerator == "gpu" and isinstance(trainer.devices, int) and trainer.devices > max(gpu_count, 1):
        fix = f"trainer.devices={gpu_count}"
        raise UserError("too few GPUs.", [Problem(f"trainer.devices={trainer.devices}", f"{gpu_count} GPUs", fix=fix)])
    return accelerator


@contextmanager
def assign_gpus_from(first_gpu: int) -> Iterator[None]:
    """Make runs inside the context take GPUs from number `first_gpu` on, wrapping around at the last GPU.

    CUDA_VISIBLE_DEVICES would have no effect in a process that has initialized CUDA in an earlier job.
    """
    os.environ[FIRST_GPU_ENV] = str(first_gpu)
    try:
        yield
    finally:
        del os.environ[FIRST_GPU_ENV]


def compute_gpu_index(rank: int, first_gpu: int, gpu_count: int) -> int:
    """Return the index of the GPU of process `rank` of a run that starts at `first_gpu`, modulo `gpu_count`."""
    return (first_gpu + rank) % max(1, gpu_count)


def get_gpu_index(rank: int) -> int:
    """Return the index of the GPU of process `rank` of this run."""
    return compute_gpu_index(rank, int(os.environ.get(FIRST_GPU_ENV, "0")), torch.cuda.device_count())


def get_lightning_devices(accelerator: str, device_count: int) -> int | list[int]:
    """Return Lightning's `devices` argument: the indices of CUDA GPUs, else the number of devices."""
    is_cuda = accelerator == "gpu" and torch.cuda.is_available()
    return [get_gpu_index(rank) for rank in range(device_count)] if is_cuda else device_count


def get_device(accelerator: str, rank: int = 0) -> torch.device:
    """Return the device number `rank` of the accelerator that `resolve_accelerator` returns."""
    if accelerator == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", get_gpu_index(rank)) if torch.cuda.is_available() else torch.device("mps")


def resolve_precision(trainer: TrainerConfig, accelerator: str) -> str:
    """Return Lightning's name of the precision. On a CPU `auto` is 32-true unless something was measured.

    Raises:
        UserError: for half precision on a CPU.
    """
    check_precision(trainer, accelerator)
    if trainer.precision != "auto":
        return trainer.precision
    if accelerator == "cpu" or not torch.cuda.is_available():
        return "32-true"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed"
    return "32-true" if trainer.parallel == "fsdp" else "16-mixed"  # 16-mixed scales whole gradients, FSDP shards them


def check_precision(trainer: TrainerConfig, accelerator: str) -> None:
    """Raise UserError for half precision on a CPU."""
    if trainer.precision == "16-mixed" and accelerator == "cpu":
        problem = Problem("trainer.precision=16-mixed", "a CPU", fix="trainer.precision=auto")
        raise UserError("no half precision on a CPU.", [problem])


def check_sync_batchnorm(trainer: TrainerConfig, accelerator: str) -> None:
    """Check that BatchNorm can be synchronized if the recipe asks for it.

    Raises:
        UserError: if there is no CUDA GPU.
    """
    if trainer.sync_batchnorm and not (accelerator == "gpu" and torch.cuda.is_available()):
        problem = Problem("trainer.sync_batchnorm=true", "no GPU", fix="trainer.sync_batchnorm=false")
        raise UserError("BatchNorm can be synchronized on GPUs only.", [problem])


def resolve_memory_format(backbone: BackboneConfig, accelerator: str) -> torch.memory_format:
    """Return the memory format of weights and images.

    `auto` means channels last on GPUs, for their tensor cores, and contiguous on CPUs, where channels last is 1.3 times
    faster or 2 times slower, depending on the network.
    """
    requested_format = backbone.memory_format
    is_channels_last = requested_format == "channels_last" or (
        requested_format == "auto" and accelerator == "gpu" and torch.cuda.is_available()
    )
    return torch.channels_last if is_channels_last else torch.contiguous_format


def describe_hardware() -> dict[str, Any]:
    """Return the machine's CPU, GPUs and platform as `run.json` holds them."""
    gpu_names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cpu": get_cpu_name(), "cores": available_cpus(), "gpus": gpu_names, "platform": platform.platform()}


def get_cpu_name() -> str:
    """Return the name of the CPU model."""
    return _read_cpuinfo("model name") or platform.processor() or platform.machine()


def has_bf16_instructions() -> bool:
    """Return whether the CPU has instructions for bfloat16, as far as Linux says so."""
    flags = f"{_read_cpuinfo('flags')} {_read_cpuinfo('Features')}"
    return bool(BF16_FLAGS & set(flags.split()))


def _read_cpuinfo(key: str) -> str:
    """Return the value of `key` of the first core; empty if there is none."""
    lines = CPUINFO_FILE.read_text().splitlines() if CPUINFO_FILE.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
