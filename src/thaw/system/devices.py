"""What the machine offers, and what the recipe's `auto` means on it."""

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

FIRST_GPU_ENV = "THAW_FIRST_GPU"  # in the environment, so that the further processes of a run know it too


@dataclass(frozen=True)
class ProcessTopology:
    """The processes that train one run: so many `devices`, a process each, on each of so many `nodes`."""

    devices: int
    nodes: int = 1

    @property
    def world_size(self) -> int:
        return self.devices * self.nodes

    def to_dict(self) -> dict[str, int]:
        return asdict(self)


def resolve_process_topology(trainer: TrainerConfig) -> ProcessTopology:
    """What `trainer.devices` and `trainer.num_nodes` mean here.

    Raises:
        UserFault: where there are no GPUs to count, or a launcher has started other processes than the recipe asks for.
    """
    launcher = detect_launcher()
    if launcher is None:
        if trainer.num_nodes not in ("auto", 1):
            fix = f"torchrun --nnodes={trainer.num_nodes} ... train.py ..., or srun (docs/devices.md)"
            problem = Problem(
                f"trainer.num_nodes={trainer.num_nodes}", "a process that no launcher has started", fix=fix
            )
            raise UserError("one machine alone.", [problem])
        return ProcessTopology(_count_devices(trainer))
    requested = ProcessTopology(
        _resolve_auto(trainer.devices, 1 if trainer.parallel == "auto" else launcher.devices),
        _resolve_auto(trainer.num_nodes, 1 if trainer.parallel == "auto" else launcher.nodes),
    )
    if requested != ProcessTopology(launcher.devices, launcher.nodes):
        got = f"{launcher.name} has started {launcher.devices} on each of {launcher.nodes} nodes"
        valid = f"trainer.devices={requested.devices} trainer.num_nodes={requested.nodes}"
        raise UserError("other processes than asked for.", [Problem(valid, got, fix="trainer=ddp, or trainer=fsdp")])
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
    """`gpu` or `cpu`. Raises UserFault where a GPU is asked for and there is none, or too few."""
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if trainer.accelerator == "gpu" and not has_gpu:
        raise UserError(
            "no GPU.", [Problem("trainer.accelerator=gpu", "torch sees no GPU here", fix="trainer.accelerator=auto")]
        )
    accelerator = "gpu" if has_gpu and trainer.accelerator != "cpu" else "cpu"
    gpu_count = torch.cuda.device_count()
    if accelerator == "gpu" and isinstance(trainer.devices, int) and trainer.devices > max(gpu_count, 1):
        raise UserError(
            "too few GPUs.",
            [Problem(f"trainer.devices={trainer.devices}", f"{gpu_count} GPUs", fix=f"trainer.devices={gpu_count}")],
        )
    return accelerator


@contextmanager
def assign_gpus_from(first_gpu: int) -> Iterator[None]:
    """Within, runs take their GPUs from number `gpu` on, round the machine's. CUDA_VISIBLE_DEVICES would not be heard
    in a process that has begun with CUDA in an earlier job."""
    os.environ[FIRST_GPU_ENV] = str(first_gpu)
    try:
        yield
    finally:
        del os.environ[FIRST_GPU_ENV]


def compute_gpu_index(rank: int, first_gpu: int, gpu_count: int) -> int:
    """Index of the GPU of process `rank` of a run that begins with GPU `first`, counted round all `count`."""
    return (first_gpu + rank) % max(1, gpu_count)


def get_gpu_index(rank: int) -> int:
    """Index of the GPU of process `rank` of this run."""
    return compute_gpu_index(rank, int(os.environ.get(FIRST_GPU_ENV, "0")), torch.cuda.device_count())


def resolve_devices(accelerator: str, device_count: int) -> int | list[int]:
    """`count` devices as Lightning takes them: which, where they are GPUs that can be told apart."""
    is_cuda = accelerator == "gpu" and torch.cuda.is_available()
    return [get_gpu_index(rank) for rank in range(device_count)] if is_cuda else device_count


def get_device(accelerator: str, rank: int = 0) -> torch.device:
    """Of `accelerator_for`'s answer the `rank`-th device."""
    if accelerator == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", get_gpu_index(rank)) if torch.cuda.is_available() else torch.device("mps")


def resolve_precision(trainer: TrainerConfig, accelerator: str) -> Any:
    """Lightning's name of the precision."""
    if trainer.precision == "16-mixed" and accelerator == "cpu":
        raise UserError(
            "no half precision on a CPU.",
            [Problem("trainer.precision=16-mixed", "a CPU", fix="trainer.precision=auto")],
        )
    if trainer.precision != "auto":
        return trainer.precision
    if accelerator == "cpu" or not torch.cuda.is_available():
        return "32-true"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed"
    return "32-true" if trainer.parallel == "fsdp" else "16-mixed"  # which needs a scaler of whole gradients


def check_sync_batchnorm(trainer: TrainerConfig, accelerator: str) -> None:
    """Raises UserFault where BatchNorm is to be synchronised and cannot be."""
    if trainer.sync_batchnorm and not (accelerator == "gpu" and torch.cuda.is_available()):
        fix = "trainer.sync_batchnorm=false"
        raise UserError(
            "BatchNorm is synchronised on GPUs.", [Problem("trainer.sync_batchnorm=true", "no GPU", fix=fix)]
        )


def resolve_memory_format(backbone: BackboneConfig, accelerator: str) -> torch.memory_format:
    """Channels last suits tensor cores; on a CPU it is up to the network (1.3 times faster or 2 times slower), so there
    `auto` leaves it as it is."""
    requested_format = backbone.memory_format
    is_channels_last = requested_format == "channels_last" or (
        requested_format == "auto" and accelerator == "gpu" and torch.cuda.is_available()
    )
    return torch.channels_last if is_channels_last else torch.contiguous_format


def describe_hardware() -> dict[str, Any]:
    gpu_names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cpu": _get_cpu_name(), "cores": available_cpus(), "gpus": gpu_names, "platform": platform.platform()}


def _get_cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
