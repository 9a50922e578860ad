"""Which launchers run jobs in other processes than the sweep's, where the output goes, and the resources of a job."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from thaw.config.compose import register_resolvers

OUTPUT_FILE = "output.log"
STDOUT, STDERR = 1, 2


def get_launcher_name(launcher: DictConfig) -> str:
    """Return the class name of Hydra's launcher plugin."""
    return str(launcher._target_).rpartition(".")[2]


def is_in_process_launcher(launcher: DictConfig) -> bool:
    """Return whether jobs run one after the other in the process of the sweep."""
    return get_launcher_name(launcher) == "BasicLauncher"


def is_local_parallel_launcher(launcher: DictConfig) -> bool:
    """Return whether jobs run in parallel on one machine without a scheduler that assigns GPUs."""
    return get_launcher_name(launcher) in ("JoblibLauncher", "LocalLauncher")


@dataclass(frozen=True)
class Task:
    """The task that launchers send to their processes. It carries the `arguments` of the command line, from which Hydra
    names the directory of a job before it calls the task."""

    run: Callable[[DictConfig], int]
    arguments: tuple[str, ...]

    def __call__(self, config: DictConfig) -> int:
        return self.run(config)

    def __reduce__(self) -> tuple[Callable[..., Task], tuple[object, ...]]:
        return _unpickle_task, (self.run, self.arguments)


def _unpickle_task(run: Callable[[DictConfig], int], arguments: tuple[str, ...]) -> Task:
    register_resolvers(arguments)
    return Task(run, arguments)


@contextmanager
def redirect_output(file: Path) -> Iterator[None]:
    """Append all that this process and its children print to `file`."""
    sys.stdout.flush()
    sys.stderr.flush()
    saved_descriptors = {descriptor: os.dup(descriptor) for descriptor in (STDOUT, STDERR)}
    with file.open("a", buffering=1, encoding="utf-8") as stream:
        try:
            for descriptor in saved_descriptors:
                os.dup2(stream.fileno(), descriptor)
            with redirect_stdout(stream), redirect_stderr(stream):
                yield
        finally:
            for descriptor, saved_descriptor in saved_descriptors.items():
                os.dup2(saved_descriptor, descriptor)
                os.close(saved_descriptor)


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
