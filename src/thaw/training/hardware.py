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

from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Backbone, Trainer
from thaw.training.launched import launched
from thaw.training.process import cores

FIRST_GPU = "THAW_FIRST_GPU"  # in the environment, so that the further processes of a run know it too


@dataclass(frozen=True)
class Layout:
    """The processes that train one run: so many `devices`, a process each, on each of so many `nodes`."""

    devices: int
    nodes: int = 1

    @property
    def processes(self) -> int:
        return self.devices * self.nodes

    def plain(self) -> dict[str, int]:
        return asdict(self)


def layout_of(trainer: Trainer) -> Layout:
    """What `trainer.devices` and `trainer.nodes` mean here.

    Raises:
        UserFault: where there are no GPUs to count, or a launcher has started other processes than the recipe asks for.
    """
    here = launched()
    if here is None:
        if trainer.nodes not in ("auto", 1):
            fix = f"torchrun --nnodes={trainer.nodes} ... train.py ..., or srun (docs/devices.md)"
            fault = Fault(f"trainer.nodes={trainer.nodes}", "a process that no launcher has started", fix=fix)
            raise UserFault("one machine alone.", [fault])
        return Layout(_devices_here(trainer))
    asked = Layout(
        _or_auto(trainer.devices, 1 if trainer.parallel == "auto" else here.devices),
        _or_auto(trainer.nodes, 1 if trainer.parallel == "auto" else here.nodes),
    )
    if asked != Layout(here.devices, here.nodes):
        got = f"{here.launcher} has started {here.devices} on each of {here.nodes} nodes"
        valid = f"trainer.devices={asked.devices} trainer.nodes={asked.nodes}"
        raise UserFault("other processes than asked for.", [Fault(valid, got, fix="trainer=ddp, or trainer=fsdp")])
    return asked


def _or_auto(value: int | str, automatic: int) -> int:
    return value if isinstance(value, int) else automatic


def _devices_here(trainer: Trainer) -> int:
    if isinstance(trainer.devices, int):
        return trainer.devices
    if trainer.parallel == "auto":
        return 1
    if accelerator_for(trainer) == "cpu":
        subject = f"trainer.parallel={trainer.parallel} with trainer.devices=auto"
        fix = "trainer.devices=2, for two processes on the CPU"
        raise UserFault("no GPUs to count.", [Fault(subject, "no GPU here", "a process for each GPU", fix)])
    return max(1, torch.cuda.device_count())


def accelerator_for(trainer: Trainer) -> str:
    """`gpu` or `cpu`. Raises UserFault where a GPU is asked for and there is none, or too few."""
    has_gpu = torch.cuda.is_available() or torch.backends.mps.is_available()
    if trainer.accelerator == "gpu" and not has_gpu:
        raise UserFault(
            "no GPU.", [Fault("trainer.accelerator=gpu", "torch sees no GPU here", fix="trainer.accelerator=auto")]
        )
    chosen = "gpu" if has_gpu and trainer.accelerator != "cpu" else "cpu"
    count = torch.cuda.device_count()
    if chosen == "gpu" and isinstance(trainer.devices, int) and trainer.devices > max(count, 1):
        raise UserFault(
            "too few GPUs.",
            [Fault(f"trainer.devices={trainer.devices}", f"{count} GPUs", fix=f"trainer.devices={count}")],
        )
    return chosen


@contextmanager
def beginning_with(gpu: int) -> Iterator[None]:
    """Within, runs take their GPUs from number `gpu` on, round the machine's. CUDA_VISIBLE_DEVICES would not be heard
    in a process that has begun with CUDA in an earlier job."""
    os.environ[FIRST_GPU] = str(gpu)
    try:
        yield
    finally:
        del os.environ[FIRST_GPU]


def gpu_of(rank: int, first: int, count: int) -> int:
    """Index of the GPU of process `rank` of a run that begins with GPU `first`, counted round all `count`."""
    return (first + rank) % max(1, count)


def gpu(rank: int) -> int:
    """Index of the GPU of process `rank` of this run."""
    return gpu_of(rank, int(os.environ.get(FIRST_GPU, "0")), torch.cuda.device_count())


def devices_for(accelerator: str, count: int) -> int | list[int]:
    """`count` devices as Lightning takes them: which, where they are GPUs that can be told apart."""
    apart = accelerator == "gpu" and torch.cuda.is_available()
    return [gpu(rank) for rank in range(count)] if apart else count


def device_of(accelerator: str, rank: int = 0) -> torch.device:
    """Of `accelerator_for`'s answer the `rank`-th device."""
    if accelerator == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", gpu(rank)) if torch.cuda.is_available() else torch.device("mps")


def precision_for(trainer: Trainer, accelerator: str) -> Any:
    """Lightning's name of the precision."""
    if trainer.precision == "16-mixed" and accelerator == "cpu":
        raise UserFault(
            "no half precision on a CPU.", [Fault("trainer.precision=16-mixed", "a CPU", fix="trainer.precision=auto")]
        )
    if trainer.precision != "auto":
        return trainer.precision
    if accelerator == "cpu" or not torch.cuda.is_available():
        return "32-true"
    if torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16-mixed"
    return "32-true" if trainer.parallel == "fsdp" else "16-mixed"  # which needs a scaler of whole gradients


def check_batchnorm(trainer: Trainer, accelerator: str) -> None:
    """Raises UserFault where BatchNorm is to be synchronised and cannot be."""
    if trainer.sync_batchnorm and not (accelerator == "gpu" and torch.cuda.is_available()):
        fix = "trainer.sync_batchnorm=false"
        raise UserFault("BatchNorm is synchronised on GPUs.", [Fault("trainer.sync_batchnorm=true", "no GPU", fix=fix)])


def memory_format_for(backbone: Backbone, accelerator: str) -> torch.memory_format:
    """Channels last suits tensor cores; on a CPU it is up to the network (1.3 times faster or 2 times slower), so there
    `auto` leaves it as it is."""
    wished = backbone.memory_format
    last = wished == "channels_last" or (wished == "auto" and accelerator == "gpu" and torch.cuda.is_available())
    return torch.channels_last if last else torch.contiguous_format


def hardware() -> dict[str, Any]:
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {"cpu": _cpu_name(), "cores": cores(), "gpus": gpus, "platform": platform.platform()}


def _cpu_name() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
