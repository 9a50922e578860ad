"""What of a machine a job of a sweep gets: numbers that presets of conf/launcher/ ask for."""

from __future__ import annotations

from omegaconf import OmegaConf


def register_resource_resolvers() -> None:
    """The interpolations of conf/launcher/. torch is imported where an answer needs it: as a sweep starts."""
    for function in (count_gpus, count_gpus_per_job, count_parallel_jobs):
        OmegaConf.register_new_resolver(f"thaw.{function.__name__}", function, replace=True)


def count_gpus(accelerator: str) -> int:
    """GPUs of this machine that jobs with trainer.accelerator=`accelerator` can use."""
    if accelerator == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def count_gpus_per_job(accelerator: str, devices: int | str) -> int:
    """GPUs to ask a cluster for. Whether `auto` means a GPU is decided by the machine that starts the sweep."""
    num_gpus = devices if isinstance(devices, int) else 1
    return num_gpus if accelerator == "gpu" or count_gpus(accelerator) else 0


def count_parallel_jobs(accelerator: str, devices: int | str, threads: int | None) -> int:
    """Jobs that this machine has GPUs for, or without GPUs, cores."""
    if num_gpus := count_gpus(accelerator):
        return max(1, num_gpus // (devices if isinstance(devices, int) else 1))
    from thaw.system.process import available_cpus

    return max(1, available_cpus() // (threads or available_cpus()))
