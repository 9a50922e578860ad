"""Jobs in other processes than the sweep's: which are, what those processes are sent, where their output goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from thaw.config.command import register_resolvers

OUTPUT = "output.log"
STDOUT, STDERR = 1, 2


def launcher_name(launcher: DictConfig) -> str:
    """Of Hydra's launcher plugin: its class."""
    return str(launcher._target_).rpartition(".")[2]


def in_this_process(launcher: DictConfig) -> bool:
    """Whether jobs run one after the other in the sweep's own process."""
    return launcher_name(launcher) == "BasicLauncher"


def shares_its_machine(launcher: DictConfig) -> bool:
    """Whether jobs run side by side on one machine, of which nobody deals out the GPUs."""
    return launcher_name(launcher) in ("JoblibLauncher", "LocalLauncher")


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
        return _arrived, (self.run, self.arguments, self.command)


def _arrived(run: Callable[[DictConfig], int], arguments: tuple[str, ...], command: tuple[str, ...]) -> Task:
    register_resolvers(arguments)
    sys.argv[:] = command
    return Task(run, arguments, command)


@contextmanager
def output_to(file: Path) -> Iterator[None]:
    """Within, what this process and those that it starts print goes to the end of `file`."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = {number: os.dup(number) for number in (STDOUT, STDERR)}
    with file.open("a", buffering=1, encoding="utf-8") as stream:
        try:
            for number in kept:
                os.dup2(stream.fileno(), number)
            with redirect_stdout(stream), redirect_stderr(stream):
                yield
        finally:
            for number, before in kept.items():
                os.dup2(before, number)
                os.close(before)
