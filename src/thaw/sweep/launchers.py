"""Jobs in other processes than the sweep's: which launchers use them, what is sent to them, where their output goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

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
