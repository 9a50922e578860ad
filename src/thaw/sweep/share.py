"""What of a machine a job of a sweep gets: numbers that presets of conf/launcher/ ask for."""

from __future__ import annotations

from omegaconf import OmegaConf


def register_shares() -> None:
    """The interpolations of conf/launcher/. torch is imported where an answer needs it: as a sweep starts."""
    for function in (gpus, gpus_a_job, jobs_at_once):
        OmegaConf.register_new_resolver(f"thaw.{function.__name__}", function, replace=True)


def gpus(accelerator: str) -> int:
    """GPUs of this machine that jobs with trainer.accelerator=`accelerator` can use."""
    if accelerator == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def gpus_a_job(accelerator: str, devices: int | str) -> int:
    """GPUs to ask a cluster for. Whether `auto` means a GPU is decided by the machine that starts the sweep."""
    wanted = devices if isinstance(devices, int) else 1
    return wanted if accelerator == "gpu" or gpus(accelerator) else 0


def jobs_at_once(accelerator: str, devices: int | str, threads: int | None) -> int:
    """Jobs that this machine has GPUs for, or without GPUs, cores."""
    if count := gpus(accelerator):
        return max(1, count // (devices if isinstance(devices, int) else 1))
    from thaw.training.process import cores

    return max(1, cores() // (threads or cores()))
