"""The resources of a machine that a job of a sweep gets, for the presets of conf/launcher/."""

from __future__ import annotations

from omegaconf import OmegaConf


def register_resource_resolvers() -> None:
    """Register the interpolations of conf/launcher/. They import torch only when a sweep starts."""
    for function in (count_gpus, count_gpus_per_job, count_parallel_jobs):
        OmegaConf.register_new_resolver(f"thaw.{function.__name__}", function, replace=True)


def count_gpus(accelerator: str) -> int:
    """Return the number of GPUs of this machine that jobs with trainer.accelerator=`accelerator` can use."""
    if accelerator == "cpu":
        return 0
    import torch

    return torch.cuda.device_count()


def count_gpus_per_job(accelerator: str, devices: int | str) -> int:
    """Return the number of GPUs to request from a cluster. The machine that starts the sweep decides whether `auto`
    means a GPU."""
    num_gpus = devices if isinstance(devices, int) else 1
    return num_gpus if accelerator == "gpu" or count_gpus(accelerator) else 0


def count_parallel_jobs(accelerator: str, devices: int | str, threads: int | None) -> int:
    """Return the number of jobs that this machine has GPUs for or, without GPUs, cores."""
    if num_gpus := count_gpus(accelerator):
        return max(1, num_gpus // (devices if isinstance(devices, int) else 1))
    from thaw.system.process import available_cpus

    return max(1, available_cpus() // (threads or available_cpus()))
