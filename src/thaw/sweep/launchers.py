"""Jobs in other processes than the sweep's: which are, what those processes are sent, where their output goes."""

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
    """Of Hydra's launcher plugin: its class."""
    return str(launcher._target_).rpartition(".")[2]


def is_in_process_launcher(launcher: DictConfig) -> bool:
    """Whether jobs run one after the other in the sweep's own process."""
    return get_launcher_name(launcher) == "BasicLauncher"


def is_local_parallel_launcher(launcher: DictConfig) -> bool:
    """Whether jobs run side by side on one machine, of which nobody deals out the GPUs."""
    return get_launcher_name(launcher) in ("JoblibLauncher", "LocalLauncher")


@dataclass(frozen=True)
class Task:
    """`run`, as launchers send it to their processes, with what those would not know: `arguments`, by which Hydra names
    a job's directory before it calls the task, and `command`, which runs record."""

    run: Callable[[DictConfig], int]
    arguments: tuple[str, ...]
    command: tuple[str, ...]

    def __call__(self, config: DictConfig) -> int:
        return self.run(config)

    def __reduce__(self) -> tuple[Callable[..., Task], tuple[object, ...]]:
        return _unpickle_task, (self.run, self.arguments, self.command)


def _unpickle_task(run: Callable[[DictConfig], int], arguments: tuple[str, ...], command: tuple[str, ...]) -> Task:
    register_resolvers(arguments)
    sys.argv[:] = command
    return Task(run, arguments, command)


@contextmanager
def redirect_output(file: Path) -> Iterator[None]:
    """Within, what this process and those that it starts print goes to the end of `file`."""
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
