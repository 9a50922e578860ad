"""What the machine offers, and what the recipe's `auto` means on it."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import torch

from thaw.config.faults import Fault, UserFault
from thaw.config.schema import Backbone, Trainer
from thaw.training.process import cores


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


def device_of(accelerator: str, rank: int = 0) -> torch.device:
    """Of `accelerator_for`'s answer the `rank`-th device."""
    if accelerator == "cpu":
        return torch.device("cpu")
    return torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("mps")


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
    return "bf16-mixed" if torch.cuda.is_bf16_supported(including_emulation=False) else "16-mixed"


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
